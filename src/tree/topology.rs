//! Who is whose parent: T trees of fan-out k over the N nodes of a job.
//!
//! Every tree is the complete k-ary tree over *positions* 0..N in breadth-first order; tree t
//! places rank r at position `(r - offset(t)) mod N`, with `offset(t) = t * N / T`. The first
//! `ceil((N - 1) / k)` positions of a tree are interior, so for T ≤ k the interiors of the trees
//! are disjoint blocks of ranks, and a node forwards in about one tree and is a leaf in the rest.
//!
//! Everything is computed from (N, T, k) and a rank in O(depth); nothing is stored per node and no
//! list is walked, so all nodes agree without exchanging anything.

use core::fmt;

/// A helper's number in its job, from 0.
pub type Rank = u32;

/// The number of one of the T trees, from 0.
pub type TreeIndex = u16;

/// More trees than this gain nothing (a node has that many parents) and only cost state.
pub const MAX_TREES: u16 = 64;

/// A job's trees survive the loss of one root less than this, however few trees there are.
const FEWEST_SUCCESSIONS: u16 = 4;

/// Why a topology cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// The job has no nodes.
    NoNodes,
    /// T is 0, above N, or above [`MAX_TREES`].
    Trees {
        /// The T that was asked for.
        asked: u16,
        /// The largest T that this job allows.
        limit: u16,
    },
    /// k is 0 or above N.
    FanOut {
        /// The k that was asked for.
        asked: u32,
        /// The largest k that this job allows.
        limit: u32,
    },
    /// The rank is not below N.
    Rank {
        /// The rank that was asked for.
        asked: Rank,
        /// The number of nodes.
        nodes: u32,
    },
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoNodes => write!(f, "a job needs at least one node"),
            Self::Trees { asked, limit } => {
                write!(
                    f,
                    "{asked} trees asked for; give a number from 1 to {limit}"
                )
            }
            Self::FanOut { asked, limit } => {
                write!(
                    f,
                    "fan-out {asked} asked for; give a number from 1 to {limit}"
                )
            }
            Self::Rank { asked, nodes } => {
                write!(
                    f,
                    "rank {asked} does not exist in a job of {nodes} nodes (0 to {})",
                    nodes - 1
                )
            }
        }
    }
}

impl core::error::Error for TopologyError {}

/// T trees of fan-out k over N nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: u32,
    trees: TreeIndex,
    fan_out: u32,
}

impl Topology {
    /// The topology of `nodes` helpers in `trees` trees whose interior nodes have `fan_out`
    /// children.
    ///
    /// # Errors
    /// `trees` and `fan_out` must lie in 1..=`nodes`.
    pub fn new(nodes: u32, trees: u16, fan_out: u32) -> Result<Self, TopologyError> {
        if nodes == 0 {
            return Err(TopologyError::NoNodes);
        }
        let limit = u16::try_from(nodes).unwrap_or(u16::MAX).min(MAX_TREES);
        if trees == 0 || trees > limit {
            return Err(TopologyError::Trees {
                asked: trees,
                limit,
            });
        }
        if fan_out == 0 || fan_out > nodes {
            return Err(TopologyError::FanOut {
                asked: fan_out,
                limit: nodes,
            });
        }
        Ok(Self {
            nodes,
            trees,
            fan_out,
        })
    }

    /// As [`Self::new`], with T and k lowered to N where a job is smaller than they are.
    ///
    /// # Errors
    /// A job of no nodes, no trees or no children.
    pub fn fitted(nodes: u32, trees: u16, fan_out: u32) -> Result<Self, TopologyError> {
        let most = u16::try_from(nodes).unwrap_or(u16::MAX).min(MAX_TREES);
        Self::new(nodes, trees.min(most), fan_out.min(nodes))
    }

    /// The number of nodes, N.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// The number of trees, T.
    pub fn trees(&self) -> TreeIndex {
        self.trees
    }

    /// The fan-out, k.
    pub fn fan_out(&self) -> u32 {
        self.fan_out
    }

    /// Checks that `rank` belongs to the job.
    ///
    /// # Errors
    /// [`TopologyError::Rank`] when it does not.
    pub fn check(&self, rank: Rank) -> Result<(), TopologyError> {
        if rank < self.nodes {
            Ok(())
        } else {
            Err(TopologyError::Rank {
                asked: rank,
                nodes: self.nodes,
            })
        }
    }

    fn offset(&self, tree: TreeIndex) -> u32 {
        let offset = u64::from(tree) * u64::from(self.nodes) / u64::from(self.trees);
        u32::try_from(offset).unwrap_or(0)
    }

    fn position(&self, tree: TreeIndex, rank: Rank) -> u32 {
        let offset = self.offset(tree);
        if rank >= offset {
            rank - offset
        } else {
            rank + (self.nodes - offset)
        }
    }

    fn rank_at(&self, tree: TreeIndex, position: u32) -> Rank {
        let offset = self.offset(tree);
        if position < self.nodes - offset {
            position + offset
        } else {
            position - (self.nodes - offset)
        }
    }

    /// The root of `tree`: the only node that asks the origin for that tree's objects.
    pub fn root(&self, tree: TreeIndex) -> Rank {
        self.rank_at(tree, 0)
    }

    /// The parent of `rank` in `tree`; none for the root.
    pub fn parent(&self, tree: TreeIndex, rank: Rank) -> Option<Rank> {
        let position = self.position(tree, rank);
        (position > 0).then(|| self.rank_at(tree, (position - 1) / self.fan_out))
    }

    /// The children of `rank` in `tree`, in the order in which all nodes list them.
    pub fn children(&self, tree: TreeIndex, rank: Rank) -> impl Iterator<Item = Rank> + use<> {
        let topology = *self;
        let first = u64::from(self.position(tree, rank)) * u64::from(self.fan_out) + 1;
        let end = (first + u64::from(self.fan_out)).min(u64::from(self.nodes));
        (first..end).map(move |position| topology.rank_at(tree, position as u32))
    }

    /// Whether `upper` is a proper ancestor of `lower` in `tree`.
    pub fn is_ancestor(&self, tree: TreeIndex, upper: Rank, lower: Rank) -> bool {
        let upper = self.position(tree, upper);
        let mut position = self.position(tree, lower);
        while position > upper {
            position = (position - 1) / self.fan_out;
            if position == upper {
                return true;
            }
        }
        false
    }

    /// The child of `upper` in `tree` whose subtree holds `lower`; none unless `upper` is a proper
    /// ancestor of `lower`.
    pub fn child_towards(&self, tree: TreeIndex, upper: Rank, lower: Rank) -> Option<Rank> {
        let upper = self.position(tree, upper);
        let mut position = self.position(tree, lower);
        while position > upper {
            let parent = (position - 1) / self.fan_out;
            if parent == upper {
                return Some(self.rank_at(tree, position));
            }
            position = parent;
        }
        None
    }

    /// The number of hops from the root of `tree` to `rank`.
    pub fn level(&self, tree: TreeIndex, rank: Rank) -> u32 {
        let mut position = self.position(tree, rank);
        let mut level = 0;
        while position > 0 {
            position = (position - 1) / self.fan_out;
            level += 1;
        }
        level
    }

    /// The number of hops from a root to the farthest node.
    pub fn depth(&self) -> u32 {
        self.level(0, self.rank_at(0, self.nodes - 1))
    }

    /// How many nodes may act as a tree's root, one after the other as they are lost.
    pub fn successions(&self) -> u16 {
        self.trees.max(
            u16::try_from(self.nodes)
                .unwrap_or(u16::MAX)
                .min(FEWEST_SUCCESSIONS),
        )
    }

    /// Who acts as the root of `tree` when `turn` others before it are lost; turn 0 is the root. The
    /// roots of the other trees come next, or, if there are few trees, nodes spread over the job.
    pub fn acting_root(&self, tree: TreeIndex, turn: u16) -> Rank {
        if self.trees == self.successions() {
            return self.root((tree + turn) % self.trees);
        }
        let position = u64::from(turn) * u64::from(self.nodes) / u64::from(self.successions());
        self.rank_at(tree, u32::try_from(position).unwrap_or(0))
    }

    /// The turn in which `rank` acts as the root of `tree`, if it ever does.
    pub fn turn_as_root(&self, tree: TreeIndex, rank: Rank) -> Option<u16> {
        (0..self.successions()).find(|&turn| self.acting_root(tree, turn) == rank)
    }

    /// Whom `rank` asks in `tree`, best first: parent, grandparent, ..., the root, then those who act
    /// as roots when it is lost. It ends before `rank` itself: past the last rung, or where its own
    /// turn as a root comes, a node asks the origin. A root's own ladder is empty.
    pub fn ladder(&self, tree: TreeIndex, rank: Rank) -> Ladder {
        let is_root = self.root(tree) == rank;
        Ladder {
            topology: *self,
            tree,
            rank,
            at: Some(rank),
            turn: if is_root { u16::MAX } else { 0 },
        }
    }
}

/// One step of a [`Ladder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Whom to ask.
    pub rank: Rank,
    /// Asked to act as this tree's root, which is lost.
    pub stand_in: bool,
}

/// Iterates over whom a node asks, best first. See [`Topology::ladder`].
#[derive(Clone, Debug)]
pub struct Ladder {
    topology: Topology,
    tree: TreeIndex,
    rank: Rank,
    at: Option<Rank>,
    turn: u16,
}

impl Iterator for Ladder {
    type Item = Rung;

    fn next(&mut self) -> Option<Rung> {
        if let Some(at) = self.at {
            self.at = self.topology.parent(self.tree, at);
            if let Some(rank) = self.at {
                return Some(Rung {
                    rank,
                    stand_in: false,
                });
            }
        }
        self.turn = self.turn.saturating_add(1);
        if self.turn >= self.topology.successions() {
            return None;
        }
        let rank = self.topology.acting_root(self.tree, self.turn);
        (rank != self.rank).then_some(Rung {
            rank,
            stand_in: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn shapes() -> Vec<Topology> {
        let mut all = Vec::new();
        for nodes in [1, 2, 3, 5, 8, 17, 64, 100, 1_000, 4_096, 10_624] {
            for trees in [1, 2, 4, 8] {
                for fan_out in [1, 2, 4, 8, 16] {
                    all.push(Topology::fitted(nodes, trees, fan_out).unwrap());
                }
            }
        }
        all
    }

    #[test]
    fn children_and_parents_agree_and_reach_everybody() {
        for topology in shapes().into_iter().filter(|t| t.nodes() <= 1_000) {
            for tree in 0..topology.trees() {
                let mut seen = vec![false; topology.nodes() as usize];
                let mut queue = vec![topology.root(tree)];
                while let Some(rank) = queue.pop() {
                    assert!(!core::mem::replace(&mut seen[rank as usize], true));
                    for child in topology.children(tree, rank) {
                        assert_eq!(topology.parent(tree, child), Some(rank));
                        assert!(topology.is_ancestor(tree, rank, child));
                        assert!(!topology.is_ancestor(tree, child, rank));
                        queue.push(child);
                    }
                }
                assert!(seen.into_iter().all(|s| s), "{topology:?} tree {tree}");
            }
        }
    }

    #[test]
    fn a_node_is_interior_in_about_one_tree() {
        for topology in shapes() {
            if u32::from(topology.trees()) > topology.fan_out() || topology.nodes() < 64 {
                continue;
            }
            for rank in 0..topology.nodes() {
                let interior = (0..topology.trees())
                    .filter(|&tree| topology.children(tree, rank).next().is_some())
                    .count();
                assert!(
                    interior <= 2,
                    "{topology:?} rank {rank} is interior in {interior} trees"
                );
            }
        }
    }

    #[test]
    fn the_ladder_climbs_to_the_root_and_then_to_the_other_roots() {
        for topology in shapes() {
            for tree in 0..topology.trees() {
                assert_eq!(topology.ladder(tree, topology.root(tree)).count(), 0);
                let rank = topology.nodes() - 1;
                let rungs: Vec<Rung> = topology.ladder(tree, rank).collect();
                let level = topology.level(tree, rank) as usize;
                assert!(rungs.len() >= level);
                assert_eq!(rungs.is_empty(), topology.root(tree) == rank);
                for (i, rung) in rungs.iter().enumerate() {
                    assert_ne!(rung.rank, rank);
                    assert_eq!(rung.stand_in, i >= level);
                }
                if level > 0 {
                    assert_eq!(rungs[level - 1].rank, topology.root(tree));
                }
            }
        }
    }

    #[test]
    fn those_who_act_as_roots_are_different_nodes_and_know_their_turns() {
        for topology in shapes() {
            for tree in 0..topology.trees() {
                assert_eq!(topology.acting_root(tree, 0), topology.root(tree));
                for turn in 0..topology.successions() {
                    let rank = topology.acting_root(tree, turn);
                    assert_eq!(
                        topology.turn_as_root(tree, rank),
                        Some(turn),
                        "{topology:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_way_down_is_the_way_up() {
        let topology = Topology::new(1_000, 4, 4).unwrap();
        for rank in (1..1_000).step_by(37) {
            for tree in 0..4 {
                let root = topology.root(tree);
                let mut at = root;
                while let Some(child) = topology.child_towards(tree, at, rank) {
                    assert_eq!(topology.parent(tree, child), Some(at));
                    at = child;
                }
                assert_eq!(at, rank);
            }
        }
    }

    #[test]
    fn bad_shapes_are_refused_with_the_limits() {
        assert_eq!(Topology::new(0, 1, 1), Err(TopologyError::NoNodes));
        assert_eq!(
            Topology::new(4, 0, 2),
            Err(TopologyError::Trees { asked: 0, limit: 4 })
        );
        assert_eq!(
            Topology::new(4, 5, 2),
            Err(TopologyError::Trees { asked: 5, limit: 4 })
        );
        assert_eq!(
            Topology::new(4, 1, 0),
            Err(TopologyError::FanOut { asked: 0, limit: 4 })
        );
        assert_eq!(
            Topology::new(4, 1, 5),
            Err(TopologyError::FanOut { asked: 5, limit: 4 })
        );
        let topology = Topology::new(4, 1, 2).unwrap();
        assert_eq!(
            topology.check(4),
            Err(TopologyError::Rank { asked: 4, nodes: 4 })
        );
        assert_eq!(Topology::fitted(1, 8, 8), Topology::new(1, 1, 1));
    }

    #[test]
    fn a_hundred_thousand_nodes_are_six_levels_of_eight() {
        assert_eq!(Topology::new(100_000, 8, 8).unwrap().depth(), 6);
    }
}
