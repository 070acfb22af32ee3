# pairs.gp DATA OUT: ratio of two implementations that were alternated in one process, one curve per setting.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
set ylabel 'time(longconv_fftw_plain) / time(longconv_fftw)'
set format y '%.1f'
set xrange [num('xmin') / 1.15 : num('xmax') * 1.15]
set yrange [num('ymin') < 0.9 ? num('ymin') * 0.95 : 0.8 : num('ymax') * 1.05]
plot 1 with lines lc rgb '#404040' lw 1 notitle, @bands @curves
