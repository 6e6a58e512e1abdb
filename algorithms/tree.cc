// Tree: parents and children by bit arithmetic, without any other rank's help.
#include "algorithms/tree.h"

#include <bit>

#include "algorithms/flat.h"

namespace railccl::algorithms {
namespace {

struct Node {
  int parent = -1;
  std::vector<int> children;
};

Node in_order_node(int n, int i) {
  Node node;
  if (i == 0) {
    if (n > 1)
      node.children.push_back(static_cast<int>(std::bit_floor(static_cast<unsigned>(n - 1))));
    return node;
  }
  const int low = i & -i;
  // The parent is one bit up; when that is outside, the branch was lifted to the next one inside.
  const int up = (i ^ low) | (low << 1);
  node.parent = up < n ? up : i ^ low;
  if (low > 1) node.children.push_back(i - low / 2);
  for (int step = low / 2; step > 0; step /= 2) {
    if (i + step >= n) continue;
    node.children.push_back(i + step);
    break;
  }
  return node;
}

int place_of(int n, int tree, int i) {
  if (tree == 0) return i;
  return n % 2 == 0 ? n - 1 - i : (i + n - 1) % n;
}

int index_at(int n, int tree, int place) {
  if (tree == 0) return place;
  return n % 2 == 0 ? n - 1 - place : (place + 1) % n;
}

}  // namespace

Links tree_links(const Group& group, int tree) {
  const int n = group.size();
  const Node node = in_order_node(n, place_of(n, tree, group.me));
  Links links;
  if (node.parent >= 0) links.parent = group.at(index_at(n, tree, node.parent));
  for (const int child : node.children)
    links.children.push_back(group.at(index_at(n, tree, child)));
  return links;
}

namespace {

/// The group without index `root`, beginning behind it.
Group without(const Group& group, int root) {
  Group others = rotated(group, root);
  others.members.erase(others.members.begin());
  others.me -= 1;
  return others;
}

}  // namespace

Links rooted_tree_links(const Group& group, int tree, int root) {
  const Group others = without(group, root);
  Links links;
  if (others.size() == 0) return links;
  if (group.me == root) {
    links.children.push_back(others.at(index_at(others.size(), tree, 0)));
    return links;
  }
  links = tree_links(others, tree);
  if (links.parent < 0) links.parent = group.at(root);
  return links;
}

std::vector<Edge> tree_edges(const Group& group, int tree) {
  const int n = group.size();
  std::vector<Edge> edges;
  for (int place = 0; place < n; place++) {
    for (const int child : in_order_node(n, place).children)
      edges.push_back({group.at(index_at(n, tree, place)), group.at(index_at(n, tree, child))});
  }
  return edges;
}

std::vector<Edge> rooted_tree_edges(const Group& group, int tree, int root) {
  const Group others = without(group, root);
  if (others.size() == 0) return {};
  std::vector<Edge> edges = tree_edges(others, tree);
  edges.push_back({group.at(root), others.at(index_at(others.size(), tree, 0))});
  return edges;
}

Links chain_links(const Group& group, int root) {
  Links links;
  if (group.me != root) links.parent = group.at(group.me - 1);
  if ((group.me + 1) % group.size() != root) links.children.push_back(group.at(group.me + 1));
  return links;
}

}  // namespace railccl::algorithms
