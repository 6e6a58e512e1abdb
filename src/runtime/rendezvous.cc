// Rendezvous: the root, the meeting and the tree exchange; see rendezvous.h.
#include "runtime/rendezvous.h"
