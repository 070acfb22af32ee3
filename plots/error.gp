# error.gp DATA OUT: relative L2 error against the float64 judge over length, with the guide of a rounding FFT.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
set logscale y
@steps_125
set ylabel 'relative L2 error'
set format y '%.0e'
set xrange [num('xmin') / 1.15 : @right_end]
plot DATA index 'guides' using 1:2 with lines ls 101 notitle, \
     for [k=1:N] DATA index curve(k) using 1:2 with linespoints ls k title LABEL[k], \
     keyentry with lines ls 101 title 'eps·sqrt(log2 M), M = 2L'
