# time.gp DATA OUT: time of one call against length, log-log, with bounds, guides and points that failed.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
B = 0
stats DATA index 'counts' using (B = strcol(1) eq 'bounds' ? int(strcol(2)) : B, 1) nooutput
array BOUND[16]
b = 0
stats DATA index 'bounds' using (b = b + 1, BOUND[b] = strcol(1), 1) nooutput
@lengths_axis
set logscale y
set ylabel 'time of one call'
set format y '%.0s %cs'
@failed_edge
set xrange [num('xmin') / 1.15 : @right_end]
guides = TEXT_ONLY ? '' : "for [g=2:4] DATA index 'guides' using 1:g with lines ls 99+g notitle,"
guide_keys = TEXT_ONLY ? '' : ", for [g=2:4] keyentry with lines ls 99+g title word('~L ~L·log(L) ~L²', g-1)"
bounds = TEXT_ONLY || !B ? '' : "for [b=1:B] DATA index sprintf('b%02d', b) using 1:2 with lines ls 103+b notitle,"
bound_keys = TEXT_ONLY || !B ? '' : ", for [b=1:B] keyentry with lines ls 103+b title BOUND[b]"
plot @guides @bounds @bands @failed_points @curves @bound_keys @guide_keys @failed_keys
