/* The hook that the benchmarks start: as nearly its first instruction as C allows, it reads the clock, and then says in
 * the file that it is given what it read, in nanoseconds. Built static, so that no loader comes before it. */

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (count < 2) return 64;
    long long nanoseconds = now.tv_sec * 1000000000LL + now.tv_nsec;
    int file = open(arguments[1], O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (file < 0) return 1;
    return write(file, &nanoseconds, sizeof nanoseconds) == sizeof nanoseconds ? 0 : 1;
}
