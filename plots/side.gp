# side.gp DATA OUT: ratios of times from different places on one pair of axes: attention over Hyena on every machine
# (L, crossovers on the line 1), or the peers over ours (M). Colour: where, type and width; dashed: backward.
# The data say in words what lies above and below the line 1.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
PALETTE = '0x0072B2 0x56B4E9 0xD55E00 0xE69F00 0x009E73 0xCC79A7 0x000000 0x999999'
side_colour(k) = int(word(PALETTE, 1 + ((SPARE[int(k)] / 10) % words(PALETTE))))
back(k) = SPARE[int(k)] % 10
do for [k=1:N] {
    set style line k lc rgb side_colour(k) pt (back(k) ? 6 : 7) dt 1 + back(k) lw 2 ps 1.1
}
PEERS = strlen(meta('xlabel')) > 0
GOAL = strlen(meta('goal')) ? num('goal') : 0
@lengths_axis
if (PEERS) { set xlabel meta('xlabel') }
set logscale y
set ylabel meta('ylabel')
set format y '%g'
set ytics (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
set xrange [num('xmin') / 1.25 : num('xmax') * 1.25]
set yrange [num('ymin') < 0.8 ? num('ymin') / 1.3 : 0.6 : num('ymax') * 1.4]
set rmargin at screen (PEERS ? 0.76 : 0.6)
set key at screen (PEERS ? 0.775 : 0.61), screen 0.885
do for [side in 'above below'] {
    set label meta(side) at graph 0.985, first (side eq 'above' ? 1.16 : 0.87) right font ',12' textcolor rgb '#404040'
}
crossings = PEERS ? '' : "DATA index 'crossings' using 1:(1):2:3:(side_colour($4)) \
    with xerrorbars pt 4 ps 1.8 lw 2.5 lc rgb variable notitle,"
crossing_keys = PEERS ? '' : ", keyentry with points pt 4 ps 1.8 lw 2.5 lc rgb '#404040' title 'L*: from here on Hyena is faster'"
goals = GOAL == 0 ? '' : "GOAL with lines lc rgb '#404040' lw 1.5 dt 4 notitle,"
goal_keys = GOAL == 0 ? '' : ", keyentry with lines lc rgb '#404040' lw 1.5 dt 4 title sprintf('goal: %g', GOAL)"
plot 1 with lines lc rgb '#404040' lw 1 notitle, @goals @crossings \
     for [k=1:N] DATA index curve(k) using 1:2:3:4 with yerrorlines ls k title LABEL[k], \
     keyentry with lines lc rgb '#404040' lw 1 title '1: equally fast' @goal_keys @crossing_keys
