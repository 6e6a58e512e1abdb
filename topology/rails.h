// Rails: which NICs of different hosts are wired to the same first switch.
//
// A NIC names the neighbourhoods it may be part of: one set outright (a leaf switch, an InfiniBand
// subnet), else the subnets of its addresses and RoCE GIDs. NICs of two or more hosts that name the
// same neighbourhood form a rail. Loopback and link-local addresses name none, a neighbourhood on
// one host only is no rail, and an address that several hosts give themselves (container bridges)
// is not a shared network. A NIC that is down keeps its rail, so that a rail is not renumbered
// because a cable was pulled on one host. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "topology/topology.h"

namespace railccl::topology {

/// Finds the rails of `hosts`, sets Nic::rail and Nic::neighbourhood, and returns the rails, each
/// with the reason it was formed. When any NIC comes with a rail set by hand (Nic::rail >= 0), all
/// rails are taken from there, renumbered without gaps, and every other NIC of such a host is on
/// none. Hosts of which the hand says nothing join those rails: each NIC one whose NICs share a
/// neighbourhood with it, in order where several do.
/// Rails are numbered by their first NIC on the first host that has one.
std::vector<Rail> form_rails(std::vector<Host>& hosts);

/// Applies RAILCCL_RAILS ("eth0=0,eth1=1"; interface or RDMA device names) to one host by setting
/// Nic::rail. Names that this host lacks are passed over, and told to the log: hosts may differ. An
/// empty text changes nothing; a malformed one is an error.
Status set_rails_by_hand(const std::string& setting, Host& host);

/// The neighbourhoods a NIC may be part of, most telling first; empty when it names none.
std::vector<std::string> neighbourhoods_of(const Nic& nic);

/// Why a NIC is on no rail, as a sentence; for people. `hosts` as form_rails left them.
std::string why_no_rail(const std::vector<Host>& hosts, size_t host, size_t nic);

}  // namespace railccl::topology
