// All of the extension as one file: PyTorch's headers take longer to compile than its code.
#include "collectives.cc"
#include "group.cc"
#include "job.cc"
#include "lane.cc"
#include "meeting.cc"
#include "module.cc"
#include "operands.cc"
#include "watch.cc"
