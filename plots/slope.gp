# slope.gp DATA OUT: local slope d log time / d log L between neighbouring lengths, with intervals.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
set ylabel 'd log(time) / d log(L)'
set format y '%.1f'
set xrange [num('xmin') / 1.15 : num('xmax') * 1.15]
set yrange [0 : *]
set ytics 0.5
plot for [k=1:N] DATA index curve(k) using 1:3:4 with filledcurves lc rgb colour(NAME[k], SPARE[k]) notitle, \
     for [k=1:N] DATA index curve(k) using 1:2:3:4 with yerrorlines ls k title LABEL[k]
