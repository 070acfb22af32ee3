// commands.h: the subcommands; each is one file bench/<name>.c (train: bench/lm/, compare and
// selftest: bench/guard/). argv[0] is the command's own name. Returns the exit code: 0 done, 1 the
// answer is "no", 2 bad usage or input, 3 the machine lacks what was asked for, 4 failure at run
// time.
#ifndef HB_COMMANDS_H
#define HB_COMMANDS_H

int hb_cmd_list(int argc, char **argv);
int hb_cmd_check(int argc, char **argv);
int hb_cmd_apply(int argc, char **argv);
int hb_cmd_run(int argc, char **argv);
int hb_cmd_sweep(int argc, char **argv);
int hb_cmd_train(int argc, char **argv);
int hb_cmd_crossover(int argc, char **argv);
int hb_cmd_plot(int argc, char **argv);
int hb_cmd_report(int argc, char **argv);
int hb_cmd_env(int argc, char **argv);
int hb_cmd_roofline(int argc, char **argv);
int hb_cmd_gbench(int argc, char **argv);
int hb_cmd_verify(int argc, char **argv);   // bench/verify/command.c
int hb_cmd_choose(int argc, char **argv);       // bench/choose/choosecmd.c
int hb_cmd_why(int argc, char **argv);          // bench/choose/why.c
int hb_cmd_compare(int argc, char **argv);
int hb_cmd_selftest(int argc, char **argv);
int hb_cmd_count(int argc, char **argv);    // hidden: one point counted, in a child process
int hb_cmd_check_group(int argc, char **argv);  // hidden: a part of `check` in a child process
int hb_cmd_point(int argc, char **argv);    // hidden: one point in a child process

#endif
