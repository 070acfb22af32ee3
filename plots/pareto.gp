# pareto.gp DATA OUT: training time per token against perplexity; the length stands beside each group of marks.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
set xlabel 'training time per token'
set format x '%.0s %cs'
set ylabel 'perplexity on held-out text (per token)'
set format y '%g'
set xrange [0 : num('xmax') * 1.1]
set yrange [num('ymin') * 0.96 : num('ymax') * 1.04]
plot for [k=1:N] DATA index curve(k) using 1:2 with points ls k title LABEL[k], \
     for [k=1:N] DATA index curve(k) using 1:2:3 with labels left offset 0.8,0 font ',9' notitle
