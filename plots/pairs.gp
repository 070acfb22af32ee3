# pairs.gp DATA OUT: ratio of two implementations, alternated in one process where that was measured, one curve per
# setting.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
set logscale y
@half_steps
set ylabel 'time(longconv_fftw_plain) / time(longconv_fftw)'
set format y '%g'
set xrange [num('xmin') / 1.15 : num('xmax') * 1.15]
set yrange [num('ymin') < 0.9 ? num('ymin') * 0.95 : 0.9 : num('ymax') * 1.05]
plot 1 with lines lc rgb '#404040' lw 1 notitle, @bands @curves
