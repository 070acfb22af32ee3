# memory.gp DATA OUT: peak bytes of the implementation's allocator against length, log-log, with points that failed.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
@failed_edge
set logscale y 2
set ytics 1, 4
set ylabel 'memory at the peak (allocator)'
set format y '%.0b %BB'
set xrange [num('xmin') / 1.15 : @right_end]
plot for [g=2:4:2] DATA index 'guides' using 1:g with lines ls 99+g notitle, @failed_points \
     for [k=1:N] DATA index curve(k) using 1:2 with linespoints ls k title LABEL[k], \
     for [g=2:4:2] keyentry with lines ls 99+g title word('~L ~L·log(L) ~L²', g-1) @failed_keys
