# time.gp DATA OUT: time of one call against length, log-log, with bounds, guides and points that failed.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
B = 0
stats DATA index 'counts' using (B = strcol(1) eq 'bounds' ? int(strcol(2)) : B, 1) nooutput
if (TEXT_ONLY) { B = 0 }
array BOUND[16]
b = 0
stats DATA index 'bounds' using (b = b + 1, BOUND[b] = strcol(1), 1) nooutput
@lengths_axis
set logscale y
set ylabel 'time of one call'
set format y '%.0s %cs'
@failed_edge
G = TEXT_ONLY ? 1 : 4
BANDS = TEXT_ONLY ? 0 : N
set xrange [num('xmin') / 1.15 : @right_end]
plot for [g=2:G] DATA index 'guides' using 1:g with lines ls 99+g notitle, \
     for [b=1:B] DATA index sprintf('b%02d', b) using 1:2 with lines ls 103+b notitle, \
     for [k=1:BANDS] DATA index curve(k) using 1:3:4 with filledcurves lc rgb colour(NAME[k], SPARE[k]) notitle, \
     for [k=1:N] DATA index curve(k) using 1:2:3:4 with yerrorlines ls k title LABEL[k], \
     for [b=1:B] keyentry with lines ls 103+b title BOUND[b], \
     for [g=2:G] keyentry with lines ls 99+g title word('~L ~L·log(L) ~L²', g-1), \
     for [f=1:FAILED] DATA index 'failed' using 1:(edge($3)):(open_mark($2)):(curve_colour($2)) \
         with points pt variable lc rgb variable ps 1.3 lw 1.5 notitle, \
     for [f=1:FAILED] DATA index 'failed' using 1:(edge($3)):4 with labels left offset 0.8,0 font ',9' notitle
