# perplexity.gp DATA OUT: perplexity against training length: single seeds, mean with interval, controls, n-gram lines.
DATA = ARG1; OUT = ARG2
load system('dirname '.ARG0).'/style.gp'
@lengths_axis
set ylabel 'perplexity on held-out text (per token)'
set format y '%g'
set xrange [num('xmin') / 1.5 : num('xmax') * 1.5]
set yrange [num('ymin') * 0.96 : num('ymax') * 1.04]
plot for [k=1:N] DATA index sprintf('p%02d', k) using ($1*0.96):2 with points lc rgb colour(NAME[k], SPARE[k]) pt 7 ps 0.5 notitle, \
     for [k=1:N] DATA index sprintf('m%02d', k) using 1:2:3:4 with yerrorlines ls k title LABEL[k], \
     for [g=1:(num('ngrams') > 0)] DATA index 'ngrams' using (num('xmin')/1.5):1:(num('xmax')/num('xmin')*2.25*num('xmin')):(0) \
         with vectors nohead ls 105 notitle, \
     for [g=1:(num('ngrams') > 0)] DATA index 'ngrams' using (num('xmax')*1.48):1:2 with labels right offset 0,0.6 font ',9.5' notitle
