// Tree: the arithmetic of two binary trees over the same places (Sanders, Speck & Träff 2009).
//
// The first tree is in order: place 0 is the root, with the largest power of two below n as its
// only child; place i > 0, whose lowest set bit is w, has its children at i - w/2 and i + w/2, and
// the odd places are leaves. Where i + w/2 lies outside, the first of i + w/4, i + w/8... inside
// takes its place. Eight places:
//
//   0 ---- 4            The second tree is the first one mirrored when n is even, and shifted by
//   one
//        /   \          when n is odd: then every inner node of one tree, place 0 of an odd number
//       2     6         aside, is a leaf of the other. With half of the data on each tree a rank
//      / \   / \        moves no more than n in one direction.
//     1   3 5   7
//
// A tree over all places but one, the root's, serves a rooted collective: the root sends each half
// to the place at the top of its tree.
#pragma once

#include <vector>

#include "algorithms/group.h"

namespace railccl::algorithms {

/// A rank's neighbours in a tree, as global ranks; -1 is none.
struct Links {
  int parent = -1;
  std::vector<int> children;
};

/// Links of group index `group.me` in tree 0 or 1 over the whole group.
Links tree_links(const Group& group, int tree);
/// The same with index `root` on top, whose only child is the top of the tree over all others.
Links rooted_tree_links(const Group& group, int tree, int root);
/// All edges of those trees, for prices.
struct Edge {
  int parent = 0;
  int child = 0;
};
std::vector<Edge> tree_edges(const Group& group, int tree);
std::vector<Edge> rooted_tree_edges(const Group& group, int tree, int root);
/// One rank after the other, `root` first.
Links chain_links(const Group& group, int root);

}  // namespace railccl::algorithms
