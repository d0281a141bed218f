/*
 * mpi-pingpong [ROUNDS]: messages between the ranks 0 and 1; others wait.
 * Rank 0 prints one line:
 *
 *   pingpong hosts=n1,n2 rounds=1000 latency_us=1.234 bandwidth_mib_s=5678.9
 *
 * latency_us: half the median round trip of 8 bytes. bandwidth_mib_s: 1 MiB
 * over half its median round trip. ROUNDS (1000) are timed for 8 bytes, a
 * tenth of them for 1 MiB; as many before are not, to warm up.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, by_value);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* The median one-way time in seconds, for rank 0. */
static double one_way(int rank, int bytes, int rounds) {
  double *times = calloc((size_t)rounds, sizeof *times);
  char *message = malloc((size_t)bytes);
  if (times == NULL || message == NULL)
    MPI_Abort(MPI_COMM_WORLD, 1);
  memset(message, 1, (size_t)bytes);

  for (int i = -rounds; i < rounds; i++) {
    double start = MPI_Wtime();
    if (rank == 0) {
      MPI_Send(message, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
      MPI_Recv(message, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else {
      MPI_Recv(message, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      MPI_Send(message, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
    }
    if (i >= 0)
      times[i] = (MPI_Wtime() - start) / 2;
  }
  double result = median(times, rounds);
  free(message);
  free(times);
  return result;
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, size, rounds = argc > 1 ? atoi(argv[1]) : 1000;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size < 2 || rounds < 10) {
    if (rank == 0)
      fprintf(stderr, "mpi-pingpong: needs 2 ranks and at least 10 rounds\n");
    MPI_Finalize();
    return 2;
  }

  char host[MPI_MAX_PROCESSOR_NAME] = "", peer[MPI_MAX_PROCESSOR_NAME] = "";
  int len;
  MPI_Get_processor_name(host, &len);
  if (rank == 1)
    MPI_Send(host, sizeof host, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
  if (rank == 0)
    MPI_Recv(peer, sizeof peer, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  if (rank < 2) {
    double latency = one_way(rank, 8, rounds);
    double copy = one_way(rank, 1 << 20, rounds / 10);
    if (rank == 0)
      printf("pingpong hosts=%s,%s rounds=%d latency_us=%.3f bandwidth_mib_s=%.1f\n", host, peer,
             rounds, latency * 1e6, 1 / copy);
  }
  MPI_Finalize();
  return 0;
}
