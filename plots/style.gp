# style.gp: how every figure looks: terminal, axes, one look per implementation. Scripts load it first; they are called
#     gnuplot -c plots/SCRIPT.gp DATA OUT          OUT: a .png or .svg file, or - for text in the terminal
# Colours: Okabe and Ito, told apart by colour-blind readers; marks and dashes differ, too, for print in grey.

# --- terminal ---
TEXT_ONLY = OUT eq '-'              # the scripts leave out bands, guides and bounds there
svg_out = OUT[strlen(OUT)-2:*] eq 'svg'
if (TEXT_ONLY) {
    set terminal dumb noenhanced size 110, 34
} else {
    if (svg_out) { set terminal svg noenhanced size 1200, 660 font 'DejaVu Sans,13' background 'white' } \
    else { set terminal pngcairo noenhanced size 1200, 660 font 'DejaVu Sans,11.5' }
    set output OUT
}
set encoding utf8
set micro                       # µs
set datafile missing NaN

# --- looks: name, colour, mark (full), dash. Mark - 1 is the open one ---
LOOKS = 'longconv_direct longconv_fftw_plain longconv_fftw attention_naive attention_flash N S C'
LOOKS = LOOKS.' longconv_direct_cuda longconv_cufft_cuda longconv_fused_cuda attention_naive_cuda attention_cudnn_cuda'
COLOURS = '0xE69F00 0x56B4E9 0x0072B2 0xCC79A7 0xD55E00 0x999999 0x009E73 0x000000'
COLOURS = COLOURS.' 0xE69F00 0x56B4E9 0x0072B2 0xCC79A7 0xD55E00'
MARKS = '5 9 7 11 13 5 9 15 5 9 7 11 13'
DASHES = '2 4 1 3 1 2 4 5 2 4 1 3 1'
# Implementations that are not named above take one of these, by their number in the data file.
SPARE_COLOURS = '0x009E73 0x000000 0x882255 0x8C564B 0x332288 0x999933'
SPARE_MARKS = '15 5 7 9 13'                          # five marks, six colours: 30 pairs
inner(name) = name[strstrt(name, ':')+1:*]           # hyena:longconv_fftw looks like longconv_fftw
rank(name) = sum [k=1:words(LOOKS)] (word(LOOKS, k) eq inner(name) ? k : 0)
pick(list, k) = word(list, 1 + (k % words(list)))
colour(name, spare) = int(rank(name) ? word(COLOURS, rank(name)) : pick(SPARE_COLOURS, spare))
mark(name, spare) = int(rank(name) ? word(MARKS, rank(name)) : pick(SPARE_MARKS, spare))
dash(name, spare) = int(rank(name) ? word(DASHES, rank(name)) : 1 + spare % 5)

# --- the data file: meta values and the list of curves ---
array NAME[64]; array LABEL[64]; array SPARE[64]
META = ''
N = 0
stats DATA index 'meta' using (META = META.strcol(1)."\t".strcol(2)."\n", 1) nooutput
stats DATA index 'series' using (N = N + 1, NAME[N] = strcol(1), LABEL[N] = strcol(2), SPARE[N] = int($3), 1) nooutput
meta_at(key) = strstrt("\n".META, "\n".key."\t")
meta_from(key) = META[meta_at(key) + strlen(key) + 1:*]
meta(key) = meta_at(key) ? meta_from(key)[1:strstrt(meta_from(key), "\n") - 1] : ''
num(key) = real(meta(key))
curve(k) = sprintf('s%02d', k)

# Curves without a single value come last in the list; they appear as failed points only.
N_ALL = N
if (strlen(meta('curves'))) { N = int(meta('curves')) }
FAILED = strlen(meta('failed')) ? int(meta('failed')) : 0   # curves with points that failed

do for [k=1:N] {
    set style line k lc rgb colour(NAME[k], SPARE[k]) pt mark(NAME[k], SPARE[k]) dt dash(NAME[k], SPARE[k]) lw 2 ps 1.1
}
set style line 101 lc rgb '#b0b0b0' lw 1 dt 1         # guides
set style line 102 lc rgb '#b0b0b0' lw 1 dt 2
set style line 103 lc rgb '#b0b0b0' lw 1 dt 4
set style line 104 lc rgb '#000000' lw 1.5 dt 3       # bounds
set style line 105 lc rgb '#707070' lw 1.5 dt 3
set style line 106 lc rgb '#e8e8e8' lw 0.7            # grid
set style line 107 lc rgb '#000000' lw 1.5 pt 2 ps 1.1    # marks of the paper
set style line 108 lc rgb '#000000' lw 1.5 pt 3 ps 1.3

# --- axes ---
if (TEXT_ONLY) {
    set title meta('title')."\n".meta('sub')
    set key below
} else {
    set label 1 meta('title') at screen 0.012, screen 0.965 left font ',15'
    set label 2 meta('sub') at screen 0.012, screen 0.92 left font ',10.5'
    set tmargin at screen 0.88
    set rmargin at screen 0.7
    set lmargin at screen 0.1
    set key at screen 0.713, screen 0.885 left top vertical reverse Left samplen 3 spacing 1.3 font ',10'
}
if (!TEXT_ONLY) { set grid xtics ytics ls 106 }
set border 3
set tics nomirror out
set bars 0.6
set style textbox opaque noborder margins 0.4, 0.2
set style fill transparent solid 0.18 noborder

# Lengths: powers of two, written as they are.
right_end = "num('xmax') * (FAILED ? 1.7 : 1.2)"         # room for the words beside failed points
lengths_axis = "set logscale x 2; set xlabel 'sequence length L'; set format x '%.0f'"
# A logarithmic axis that spans less than a decade or so: ticks by halves, then by ones, then by fives.
half_steps = "set ytics (); set for [i=1:10] ytics add (sprintf('%g', 0.5*i) 0.5*i); \
    set for [i=6:10] ytics add (sprintf('%g', i) i); set for [i=3:12] ytics add (sprintf('%g', 5*i) 5*i)"
# Over many decades: 1, 2 and 5.
steps_125 = "set ytics (); set for [e=-9:3] ytics add (sprintf('%.0e', 10.0**e) 10.0**e, \
    sprintf('%.0e', 2*10.0**e) 2*10.0**e, sprintf('%.0e', 5*10.0**e) 5*10.0**e)"

# Points without a value stand below the top edge, one below the other at equal L.
open_mark(k) = mark(NAME[int(k)], SPARE[int(k)]) - 1
curve_colour(k) = colour(NAME[int(k)], SPARE[int(k)])
decades = strlen(meta('ymin')) ? log10(num('ymax') / num('ymin')) : 1
edge(rank) = num('ymax') * 10**(decades * (TEXT_ONLY ? 0.06 : 0.035) * (FAILED - rank))
failed_edge = "set yrange [num('ymin') / 10**(0.04*decades) : num('ymax') * 10**((0.045 + (TEXT_ONLY ? 0.06 : 0.035) * FAILED) * decades)]"

# Pieces of plot commands, empty where there is nothing to draw (gnuplot reads the data of a loop of no turns).
# Each ends with a comma, or begins with one if it stands behind the curves.
bands = TEXT_ONLY ? '' : "for [k=1:N] DATA index curve(k) using 1:3:4 with filledcurves lc rgb curve_colour(k) notitle,"
curves = "for [k=1:N] DATA index curve(k) using 1:2:3:4 with yerrorlines ls k title LABEL[k]"
failed_points = !FAILED ? '' : "DATA index 'failed' using 1:(edge($3)):(open_mark($2)):(curve_colour($2)) \
    with points pt variable lc rgb variable ps 1.3 lw 1.5 notitle, \
    DATA index 'failed' using 1:(edge($3)):4 with labels left offset 0.8,0 font ',9' notitle,"
failed_keys = N_ALL == N ? '' : ", for [k=N+1:N_ALL] keyentry with points pt open_mark(k) lc rgb curve_colour(k) ps 1.3 lw 1.5 title LABEL[k]"
