//! Runs of small jobs under faults, each from a seed; what must hold; and how a failure is shrunk.

mod checks;
mod defects;
mod origin;
mod schedule;
mod store;
mod travel;
mod world;

use copper_core::tree::Kind;
use std::fmt::Write as _;

pub use defects::Defect;
pub use schedule::Schedule;
use schedule::{FileState, MS, QUIET};
use world::{Happening, World};

/// How long after the last fault all must have come to rest.
const REST: u64 = 60_000 * MS;

/// How many rounds of new requests a healed job is given to learn what it missed.
const ROUNDS: u64 = 3;

/// Runs a schedule and gives what was wrong in it; nothing if all held.
pub fn run(schedule: &Schedule, defect: Option<Defect>) -> Vec<String> {
    let mut world = World::new(schedule.clone(), defect);
    world.run(QUIET + REST);
    rest(&mut world);
    let mut now = QUIET + REST;
    for round in 0..ROUNDS {
        now = fresh_round(&mut world, now, round + 1 == ROUNDS);
    }
    now = known_round(&mut world, now);
    world.judge.all_answered(now);
    let alive = world.alive();
    let losses = alive
        .iter()
        .filter_map(|&r| world.seats[r as usize].node.as_ref())
        .map(|n| n.counters().losses)
        .sum();
    world.judge.reads(&world.origin, &world.schedule, losses);
    world.judge.failures().to_vec()
}

fn rest(world: &mut World) {
    for rank in world.alive() {
        let World { seats, judge, .. } = world;
        if let Some(node) = &seats[rank as usize].node {
            judge.rests(rank, node);
            judge.vouches(rank, node, &seats[rank as usize].store);
        }
    }
}

/// Every survivor asks for things that nobody has asked for: the tree must have healed around the
/// dead. In the last round each must be read once.
fn fresh_round(world: &mut World, now: u64, last: bool) -> u64 {
    world.judge.strict = true;
    let dead = u64::from(world.plan.topology.nodes()) - world.alive().len() as u64;
    let patience = 3_000 * MS + dead * 1_200 * MS;
    let mut fresh = Vec::new();
    for i in 0..u64::from(world.plan.topology.trees()) * 2 {
        let length = if i % 3 == 0 { 9_000 } else { 300 };
        let file = world.origin.add(FileState::Present { version: 1, length });
        let object = world.origin.object(Kind::Content, file);
        for rank in world.alive() {
            let at = now + i * 20 * MS;
            world.queue.push(
                at,
                Happening::Ask {
                    rank,
                    object: object.clone(),
                    patience,
                },
            );
        }
        fresh.push(object);
    }
    let end = now + patience + REST / 2;
    world.run(end);
    let topology = world.plan.topology;
    let rooted = (0..topology.trees()).all(|tree| {
        (0..topology.successions()).any(|turn| world.is_alive(topology.acting_root(tree, turn)))
    });
    if last && rooted {
        for object in fresh {
            let looks = world
                .origin
                .reads
                .get(&(object.clone(), None))
                .copied()
                .unwrap_or(0);
            if looks != 1 {
                world.judge.fail(format!(
                    "healed, and {object:?} was looked up {looks} times"
                ));
            }
        }
    }
    end
}

/// Every survivor asks again for everything: nobody may still believe what was invalidated.
fn known_round(world: &mut World, now: u64) -> u64 {
    let patience = 30_000 * MS;
    for file in 0..world.schedule.files.len() {
        let object = world.origin.object(Kind::Content, file);
        for rank in world.alive() {
            world.queue.push(
                now,
                Happening::Ask {
                    rank,
                    object: object.clone(),
                    patience,
                },
            );
        }
    }
    world.judge.everywhere_fresh();
    let end = now + patience + REST * 2;
    world.run(end);
    end
}

/// Takes away from a failing schedule whatever it fails without.
pub fn shrink(schedule: &Schedule, defect: Option<Defect>) -> Schedule {
    let mut smallest = schedule.clone();
    let fails = |candidate: &Schedule| !run(candidate, defect).is_empty();
    let mut progress = true;
    while progress {
        progress = false;
        let mut index = 0;
        while index < smallest.faults.len() {
            let mut candidate = smallest.clone();
            candidate.faults.remove(index);
            if fails(&candidate) {
                smallest = candidate;
                progress = true;
            } else {
                index += 1;
            }
        }
        let mut piece = smallest.asks.len().div_ceil(2);
        while piece > 0 {
            let mut start = 0;
            while start < smallest.asks.len() {
                let mut candidate = smallest.clone();
                let end = (start + piece).min(candidate.asks.len());
                candidate.asks.drain(start..end);
                if fails(&candidate) {
                    smallest = candidate;
                    progress = true;
                } else {
                    start += piece;
                }
            }
            piece /= 2;
        }
    }
    smallest
}

/// Describes a failing seed: what failed, how to replay it, and its smallest form.
pub fn explain(seed: u64, failures: &[String]) -> String {
    let mut text = format!("seed {seed} fails; replay with: scripts/simulate.sh replay {seed}\n");
    for failure in failures {
        let _ = writeln!(text, "  {failure}");
    }
    let smallest = shrink(&Schedule::from_seed(seed), None);
    let _ = writeln!(
        text,
        "shrunk to {:?}, {:?}",
        smallest.topology, smallest.settings
    );
    let _ = writeln!(
        text,
        "  origin up to {} ns, notices {}",
        smallest.origin_delay, smallest.notices
    );
    for fault in &smallest.faults {
        let _ = writeln!(text, "  {fault:?}");
    }
    for ask in &smallest.asks {
        let state = smallest.files[ask.file];
        let _ = writeln!(text, "  {ask:?} of {state:?}");
    }
    for failure in run(&smallest, None) {
        let _ = writeln!(text, "  then {failure}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some hundreds of seeds, as CI can afford; `scripts/simulate.sh faults` runs 10,000.
    #[test]
    fn hundreds_of_fault_schedules_hold() {
        for seed in 0..300 {
            let failures = run(&Schedule::from_seed(seed), None);
            assert!(failures.is_empty(), "{}", explain(seed, &failures));
        }
    }

    #[test]
    fn a_run_depends_on_its_seed_alone() {
        for seed in [3, 14, 15] {
            let schedule = Schedule::from_seed(seed);
            let outcome = || format!("{:?}", run(&schedule, Some(Defect::DropAnswer)));
            assert_eq!(outcome(), outcome());
        }
    }

    #[test]
    fn every_planted_defect_is_caught() {
        for defect in Defect::ALL {
            let caught =
                (0..200).find(|&seed| !run(&Schedule::from_seed(seed), Some(defect)).is_empty());
            assert!(caught.is_some(), "{defect:?} goes unnoticed in 200 runs");
        }
    }

    #[test]
    fn a_failure_shrinks_to_what_it_needs() {
        let defect = Some(Defect::DoubleRead);
        let fails = |seed: &u64| !run(&Schedule::from_seed(*seed), defect).is_empty();
        let seed = (0..200).find(fails).expect("the defect is caught");
        let whole = Schedule::from_seed(seed);
        let smallest = shrink(&whole, defect);
        assert!(!run(&smallest, defect).is_empty());
        assert!(smallest.faults.is_empty() || smallest.faults.len() < whole.faults.len());
        assert!(smallest.asks.len() < whole.asks.len().max(2));
    }
}
