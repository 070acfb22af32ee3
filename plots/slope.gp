# slope.gp DATA OUT: local slope d log time / d log L between neighbouring lengths, with intervals.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
set ylabel 'd log(time) / d log(L)'
set format y '%.1f'
set xrange [num('xmin') / 1.15 : num('xmax') * 1.15]
set yrange [0 : 3]             # steeper steps leave the axes: the caption says so
set ytics 0.5
plot @bands @curves
