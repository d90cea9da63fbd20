//! The job's tree, drawn with the state of each node.
#![forbid(unsafe_code)]

use super::gather::{Gathered, State};
use super::plots::{GRID, LOCAL, Plot, TEXT, WRONG, filled, plot, text_style};
use anyhow::Result;
use copper_core::tree::Topology;
use plotters::element::{Circle, PathElement, Text};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Larger jobs are not drawn: nothing could be told apart.
pub(super) const MOST_DRAWN: u32 = 2_048;
/// Trees that are drawn; the others have the same nodes in another order.
const MOST_TREES: u16 = 4;
const LEVEL: i32 = 64;

/// Where a node is drawn: its place among those side by side, from 0, and its level.
#[derive(Clone, Copy, Debug)]
struct Spot {
    rank: u32,
    parent: Option<u32>,
    /// In halves of a leaf's room.
    across: f64,
    level: u32,
}

/// One of the trees.
pub(super) struct Drawn {
    /// Its number, from 1.
    pub(super) number: u16,
    /// Its root's name.
    pub(super) root: String,
    /// The drawing.
    pub(super) plot: Plot,
}

/// The trees of a job, or the first few of them.
pub(super) fn draw_all(gathered: &Gathered) -> Result<Vec<Drawn>> {
    let Some(topology) = &gathered.topology else {
        return Ok(Vec::new());
    };
    if topology.nodes() > MOST_DRAWN {
        return Ok(Vec::new());
    }
    let trees = topology.trees().min(MOST_TREES);
    (0..trees)
        .map(|tree| {
            let root = topology.root(tree);
            Ok(Drawn {
                number: tree + 1,
                root: gathered.nodes[root as usize].host.clone(),
                plot: draw(gathered, topology, tree)?,
            })
        })
        .collect()
}

/// The places of all nodes, and how many stand side by side.
fn spots(topology: &Topology, tree: u16) -> (Vec<Spot>, f64) {
    let mut spots = Vec::new();
    let mut leaves = 0.0;
    place(
        topology,
        tree,
        (topology.root(tree), None),
        0,
        &mut leaves,
        &mut spots,
    );
    (spots, leaves)
}

fn place(
    topology: &Topology,
    tree: u16,
    (rank, parent): (u32, Option<u32>),
    level: u32,
    leaves: &mut f64,
    spots: &mut Vec<Spot>,
) -> f64 {
    let (mut first, mut last) = (f64::MAX, f64::MIN);
    for child in topology.children(tree, rank) {
        let across = place(
            topology,
            tree,
            (child, Some(rank)),
            level + 1,
            leaves,
            spots,
        );
        (first, last) = (first.min(across), last.max(across));
    }
    let across = if first > last {
        *leaves += 1.0;
        *leaves - 0.5
    } else {
        f64::midpoint(first, last)
    };
    spots.push(Spot {
        rank,
        parent,
        across,
        level,
    });
    across
}

fn draw(gathered: &Gathered, topology: &Topology, tree: u16) -> Result<Plot> {
    let (spots, leaves) = spots(topology, tree);
    let deepest = spots.iter().map(|spot| spot.level).max().unwrap_or(0);
    let what = format!(
        "Tree {} of {}: {} nodes in {} levels below {}, of which {} do not answer; the table below \
         names them",
        tree + 1,
        topology.trees(),
        spots.len(),
        deepest + 1,
        gathered.nodes[topology.root(tree) as usize].host,
        gathered.missing().len()
    );
    let height = |_| (deepest as i32 * LEVEL + 76) as u32;
    plot(&what, height, |area, width| {
        let size = width.font();
        let room = f64::from(width.pixels()) - 40.0;
        let each = room / leaves.max(1.0);
        let spot_of = |spot: &Spot| {
            let x = 20 + (each * spot.across) as i32;
            (x, 28 + spot.level as i32 * LEVEL)
        };
        let mut at = vec![(0, 0); spots.len()];
        for spot in &spots {
            at[spot.rank as usize] = spot_of(spot);
        }
        for spot in &spots {
            if let Some(parent) = spot.parent {
                let line = vec![at[parent as usize], at[spot.rank as usize]];
                area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
            }
        }
        let radius = ((each * 0.3) as i32).clamp(2, 9);
        for spot in &spots {
            let node = &gathered.nodes[spot.rank as usize];
            let centre = at[spot.rank as usize];
            if spot.level == 0 {
                area.draw(&Circle::new(centre, radius + 4, TEXT.stroke_width(2)))?;
            }
            match node.state {
                State::Ready => area.draw(&Circle::new(centre, radius, filled(LOCAL)))?,
                State::Missing => {
                    let (x, y) = centre;
                    for (dx, dy) in [(1, 1), (1, -1)] {
                        let (dx, dy) = (dx * radius, dy * radius);
                        let line = vec![(x - dx, y - dy), (x + dx, y + dy)];
                        area.draw(&PathElement::new(line, WRONG.stroke_width(3)))?;
                    }
                }
            }
            let name = short(&node.host);
            let letters = f64::from(size) * 0.62 * name.chars().count() as f64;
            let fits = letters < each || (spot.level == 0 && letters < room / 2.0);
            if fits || (spot.level < deepest && letters < each * f64::from(topology.fan_out())) {
                let style = text_style(size, Pos::new(HPos::Center, VPos::Top));
                let (x, y) = centre;
                let half = (letters / 2.0) as i32 + 2;
                let x = x.clamp(half, (width.pixels() as i32 - half).max(half));
                area.draw(&Text::new(name, (x, y + radius + 8), style))?;
            }
        }
        Ok(())
    })
}

/// A host's name without its domain.
fn short(host: &str) -> String {
    host.split('.').next().unwrap_or(host).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_place_of_its_own() {
        let topology = Topology::fitted(100, 2, 4).unwrap();
        let (spots, leaves) = spots(&topology, 1);
        let mut ranks: Vec<u32> = spots.iter().map(|spot| spot.rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, (0..100).collect::<Vec<_>>());
        for spot in &spots {
            assert!(spot.across > 0.0 && spot.across < leaves);
            let side_by_side = |other: &&Spot| other.rank != spot.rank && other.level == spot.level;
            let near = |other: &Spot| (other.across - spot.across).abs() < 0.99;
            assert!(!spots.iter().filter(side_by_side).any(near), "{spot:?}");
        }
    }
}
