# pareto.gp DATA OUT: training time per token against perplexity; the length stands beside each group of marks.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
set logscale xy
@half_steps
set xlabel 'training time per token'
set xtics ()
do for [e=-9:0] { do for [k in '1 2 3 5'] { t = k * 10.0**e; set xtics add (gprintf('%.0s %cs', t) t) } }
set ylabel 'perplexity on held-out text (per token)'
if (num('ymax') < 1.6 * num('ymin')) { unset logscale y; set ytics auto }     # else no tick lies in it
if (num('xmax') < 4 * num('xmin')) { unset logscale x; set xtics auto; set format x '%.1s %cs' }
set format y '%g'
set xrange [num('xmin') / 1.15 : num('xmax') * 1.15]
set yrange [num('ymin') * 0.96 : num('ymax') * 1.04]
plot for [k=1:N] DATA index curve(k) using 1:2 with points ls k title LABEL[k], \
     for [k=1:N] DATA index curve(k) using 1:2:3 with labels left offset 0.8,0 font ',9' notitle
