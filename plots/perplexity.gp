# perplexity.gp DATA OUT: perplexity against training length: single seeds, mean with interval, controls, n-gram lines.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
narrow = num('ymax') < 1.6 * num('ymin')      # no tick of half_steps may lie in it
set logscale y
@half_steps
if (narrow) { unset logscale y; set logscale x 2; set ytics auto }
set ylabel 'perplexity on held-out text (per token)'
set format y '%g'
set xrange [num('xmin') / 1.5 : num('xmax') * 1.5]
set yrange [num('ymin') * 0.96 : num('ymax') * 1.04]
left = num('xmin') / 1.5
wide = num('xmax') * 1.5 - left
counts = num('ngrams') == 0 ? '' : "DATA index 'ngrams' using (left):1:(wide):(0) with vectors nohead ls 105 notitle, \
    DATA index 'ngrams' using (left):1:2 with labels left offset 0.5,-0.6 font ',9.5' notitle,"
plot @counts \
     for [k=1:N] DATA index sprintf('p%02d', k) using ($1*0.96):2 with points lc rgb curve_colour(k) pt 7 ps 0.5 notitle, \
     for [k=1:N] DATA index sprintf('m%02d', k) using 1:2:3:4 with yerrorlines ls k title LABEL[k]
