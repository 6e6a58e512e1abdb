// The functions of nccl.h: check arguments, call the communicator, translate the Status.
#include "nccl.h"
