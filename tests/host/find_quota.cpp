// find_quota ROOT: cores' worth of processor time that control groups allow; 0: no limit.
#include <cstdio>

#include "cores.h"

int main(int argc, char **argv) {
  std::printf("%d\n", bitheads::find_quota(argc > 1 ? argv[1] : "/"));
}
