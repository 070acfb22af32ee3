# ratio.gp DATA OUT: time of attention over time of hyena against length: measured curves with intervals, crossovers on
# the line 1, the FLOP bound, and what the paper says and drew (plots/paper_*.dat) on the same axes.
DATA = ARG1; OUT = ARG2
HERE = system('dirname '.ARG0)
load HERE.'/style.gp'
PAPER = HERE.'/paper_fig43.dat'
TEXT = HERE.'/paper_text.dat'
CROSSINGS = 0
stats DATA index 'counts' using (CROSSINGS = strcol(1) eq 'crossings' ? int(strcol(2)) : CROSSINGS, 1) nooutput
@lengths_axis
set logscale y
set ylabel 'time(attention) / time(hyena)'
set format y '%g'
set yrange [num('ymin') < 0.2 ? num('ymin') / 1.5 : 0.2 : num('ymax') < 100 ? 200 : 2 * num('ymax')]
set xrange [num('xmin') / 1.15 : num('xmax') * 1.5]
set rmargin at screen 0.66            # two names stand in each entry of the key
set key at screen 0.672, screen 0.885
crossings = !CROSSINGS ? '' : "DATA index 'crossings' using 1:(1):2:3:(curve_colour($4)) \
    with xerrorbars pt 4 ps 1.8 lw 2.5 lc rgb variable notitle,"
plot 1 with lines lc rgb '#404040' lw 1 notitle, \
     DATA index 'flops' using 1:2 with lines ls 104 notitle, \
     DATA index 'flops' using 1:3 with lines ls 105 notitle, \
     PAPER using 1:($4/$2) with points ls 107 notitle, \
     PAPER using 1:($3/$2) with points ls 108 notitle, \
     TEXT using 1:2 with points pt 6 ps 2.2 lw 2 lc rgb '#000000' notitle, \
     @bands @crossings @curves, \
     TEXT using ($4 == 0 ? $1 : NaN):2:3 with labels boxed right offset -1.6,0 font ',9' notitle, \
     TEXT using ($4 == 1 ? $1 : NaN):2:3 with labels boxed left offset 1.6,0 font ',9' notitle, \
     keyentry with points pt 4 ps 1.8 lw 2.5 lc rgb '#404040' title 'crossover L* with interval', \
     keyentry with lines ls 104 title 'FLOP bound 1 + L/(2D), full square', \
     keyentry with lines ls 105 title 'FLOP bound 1 + L/(4D), causal half', \
     keyentry with points pt 6 ps 2.2 lw 2 lc rgb '#000000' title 'paper, text', \
     keyentry with points ls 107 title 'paper, figure: FlashAttention', \
     keyentry with points ls 108 title 'paper, figure: PyTorch attention'
