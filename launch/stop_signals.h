// Signals that ask a run to stop: SIGUSR1, which mpirun passes on to all its ranks, and SIGTERM.
#pragma once

#include <string>

namespace hypermoe {

// From now on both signals are requests (StopSignal), not the end of this process; earlier ones are
// forgotten. Call it before the job is joined, which takes long with many ranks.
//
// A second signal, at least a second after the first, ends this process at once and so the job,
// with exit code 75: nothing is saved, whatever the ranks are waiting for. Signals closer together
// are one request: a launcher and a signal to its process group often deliver it twice.
//
// SIGTERM from mpirun itself is no request: mpirun ends a job with it when another rank has failed,
// and 0.9 s later comes SIGKILL. This process then ends as if this had not been called.
void TakeStopSignals();

// A StopSource (runtime/stop_request.h): the name of the signal that has come since.
std::string StopSignal();

}  // namespace hypermoe
