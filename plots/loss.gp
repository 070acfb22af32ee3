# loss.gp DATA OUT: training loss against tokens or wall-clock seconds, one line per seed.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
set xlabel meta('xlabel')
set format x meta('xunit') eq 's' ? '%g s' : '%.0s%c'
set logscale y
@half_steps
set ylabel 'training loss (nats per token)'
set format y '%.1f'
set xrange [0 : num('xmax')]
set yrange [num('ymin') * 0.95 : num('ymax') * 1.02]
plot for [k=1:N] DATA index curve(k) using 1:2 with lines lw 1.5 lc rgb colour(NAME[k], SPARE[k]) dt dash(NAME[k], SPARE[k]) \
         title LABEL[k]
