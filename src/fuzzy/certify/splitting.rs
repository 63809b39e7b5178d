//! Failure rates of the list decoder that are too small to be counted, by splitting.
//!
//! Each cell has a fixed uniform number U; at the noise e it flips if and only if U < e. B(e) is the set
//! of all U (and codewords) for which the decoder fails at e. On a ladder of falling e,
//!
//! P(B(e')) = P(B(e)) × P(B(e') | B(e)) / P(B(e) | B(e')),
//!
//! which is true of any two events, so nothing has to be assumed of how the decoder behaves from rung to
//! rung. The first rung is counted plainly. At each rung a population is distributed as U is
//! given B(e): states that fail at the next rung, too, are multiplied and then moved by Metropolis
//! steps (redraw the U of some cells; stay if the decoder no longer fails). Both conditional
//! probabilities are read off the populations.
//!
//! After Au and Beck (Probab. Eng. Mech. 16, 2001), whose sets are nested. The estimate converges as
//! populations grow; how far it is off shows in the spread of independent runs alone, so runs are
//! made with several seeds and [`combine`]d.

use super::Random;
use super::random::threshold;
use crate::error::{Error, Result};
use crate::fuzzy::bits::Bits;
use crate::fuzzy::polar::{Code, Family};

/// What is estimated, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of the code.
    pub family: Family,
    /// Information bits.
    pub k: usize,
    /// Paths of the decoder, from 1 (successive cancellation) to 256.
    pub paths: usize,
    /// The ladder, in falling order. At the first rung failures must be frequent.
    pub rungs: Vec<f64>,
    /// States at each rung.
    pub population: usize,
    /// Metropolis steps of each state at each rung.
    pub steps: usize,
    /// Of the run.
    pub seed: u64,
}

/// One rung of a run.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// The noise.
    pub rate: f64,
    /// The estimated probability of failure.
    pub failure: f64,
    /// P(B here | B at the rung before); of the first rung P(B).
    pub kept: f64,
    /// P(B at the rung before | B here).
    pub back: f64,
    /// Metropolis steps that were taken, of all.
    pub moved: f64,
}

/// One run. `seen` hears of each rung when it is done; a run ends early where no state survives.
pub fn run(plan: &Plan, seen: &mut dyn FnMut(&Rung)) -> Result<Vec<Rung>> {
    let falling = plan.rungs.is_sorted_by(|a, b| a > b);
    let Some((&first, rest)) = plan.rungs.split_first().filter(|_| falling) else {
        return Err(Error::input("a ladder of falling rates is needed"));
    };
    let code = Code::new(plan.family, plan.k)?;
    let mut walk = Walk {
        code: &code,
        paths: plan.paths,
        free: code.information().collect(),
        random: Random::new(plan.seed),
    };
    let (mut states, failure) = walk.begin(first, plan.population);
    let mut rungs = vec![Rung {
        rate: first,
        failure,
        kept: failure,
        back: 1.0,
        moved: 1.0,
    }];
    seen_last(&rungs, seen);
    let mut before = first;
    for &rate in rest {
        let survivors: Vec<State> = states
            .into_iter()
            .filter(|state| walk.fails(state, rate))
            .collect();
        if survivors.is_empty() {
            break;
        }
        let kept = survivors.len() as f64 / plan.population as f64;
        states = walk.multiplied(&survivors, plan.population);
        let moved = walk.moved(&mut states, rate, plan.steps);
        let back = states
            .iter()
            .filter(|state| walk.fails(state, before))
            .count();
        // A population that fails nowhere at the rung before says nothing; one half is the least it can say.
        let back = (back as f64).max(0.5) / plan.population as f64;
        let last = rungs.last().map_or(0.0, |rung| rung.failure);
        let failure = last * kept / back;
        rungs.push(Rung {
            rate,
            failure,
            kept,
            back,
            moved,
        });
        seen_last(&rungs, seen);
        before = rate;
    }
    Ok(rungs)
}

/// The estimate of several runs for the rung at `at`, with its 95 % interval: mean and Student's
/// interval of the logarithms. None with fewer than three runs that reached it.
pub fn combine(runs: &[Vec<Rung>], at: usize) -> Option<(f64, f64, f64)> {
    // Quantiles 0.975 of Student's t for 2 and more degrees of freedom.
    const T: [f64; 14] = [
        4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131,
    ];
    let logs: Vec<f64> = runs
        .iter()
        .filter_map(|run| run.get(at))
        .map(|rung| rung.failure.ln())
        .collect();
    let t = T.get(logs.len().checked_sub(3)?.min(T.len() - 1))?;
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t * (variance / n).sqrt();
    Some((mean.exp(), (mean - half).exp(), (mean + half).exp()))
}

fn seen_last(rungs: &[Rung], seen: &mut dyn FnMut(&Rung)) {
    if let Some(rung) = rungs.last() {
        seen(rung);
    }
}

/// A point of the probability space: each cell's number, and u with zeros at frozen positions.
#[derive(Clone)]
struct State {
    cells: Vec<u32>,
    u: std::rc::Rc<Bits>,
}

struct Walk<'a> {
    code: &'a Code,
    paths: usize,
    free: Vec<usize>,
    random: Random,
}

impl Walk<'_> {
    /// Draws states until `count` of them fail: those, and the estimated probability.
    fn begin(&mut self, rate: f64, count: usize) -> (Vec<State>, f64) {
        let (mut states, mut drawn) = (Vec::new(), 0u64);
        while states.len() < count {
            let cells = (0..self.code.len()).map(|_| self.random.half()).collect();
            let state = State {
                cells,
                u: self.message(),
            };
            drawn += 1;
            if self.fails(&state, rate) {
                states.push(state);
            }
        }
        // The unbiased estimate for inverse binomial sampling.
        let failure = (count as f64 - 1.0).max(0.5) / (drawn as f64 - 1.0).max(1.0);
        (states, failure)
    }

    fn message(&mut self) -> std::rc::Rc<Bits> {
        let mut u = Bits::zeros(self.code.len());
        for &at in &self.free {
            u.set(at, self.random.word() >> 63 == 1);
        }
        std::rc::Rc::new(u)
    }

    fn fails(&self, state: &State, rate: f64) -> bool {
        let limit = threshold(rate);
        let mut noise = Bits::zeros(self.code.len());
        for (at, &cell) in state.cells.iter().enumerate() {
            noise.set(at, u64::from(cell) < limit);
        }
        self.code.misses(&state.u, &noise, self.paths)
    }

    /// Copies of the survivors, of each as many but for one, in all `count`.
    fn multiplied(&mut self, survivors: &[State], count: usize) -> Vec<State> {
        let start = self.random.word() as usize % survivors.len();
        survivors
            .iter()
            .cycle()
            .skip(start)
            .take(count)
            .cloned()
            .collect()
    }

    /// Moves each state by so many steps; the share of steps that were taken.
    fn moved(&mut self, states: &mut [State], rate: f64, steps: usize) -> f64 {
        let mut taken = 0usize;
        for state in states.iter_mut() {
            for _ in 0..steps {
                let proposed = self.proposed(state);
                if self.fails(&proposed, rate) {
                    *state = proposed;
                    taken += 1;
                }
            }
        }
        taken as f64 / (states.len() * steps).max(1) as f64
    }

    /// A neighbour: 8 to 1024 cells are drawn anew, now and then the message as well. What is
    /// drawn does not depend on the state, so the step is reversible.
    fn proposed(&mut self, state: &State) -> State {
        let mut proposed = state.clone();
        let count = 8usize << (self.random.word() >> 61);
        for _ in 0..count {
            let at = self.random.half() as usize % self.code.len();
            let new = self.random.half();
            if let Some(cell) = proposed.cells.get_mut(at) {
                *cell = new;
            }
        }
        if self.random.word() >> 60 == 0 {
            proposed.u = self.message();
        }
        proposed
    }
}

#[cfg(test)]
mod tests {
    use super::super::bound_with;
    use super::*;

    /// Splitting finds for successive cancellation what the bound allows, down to where nothing can be
    /// counted: the bound is 2 in 10^6 at the last rung.
    ///
    /// Fails without the division by `back`'s counterpart `kept`, with survivors that are not moved
    /// (steps: 0), and with steps that are taken whether the decoder fails or not.
    #[test]
    fn splitting_agrees_with_the_bound() {
        let plan = Plan {
            family: Family::Dk256,
            k: 384,
            paths: 1,
            rungs: vec![0.19, 0.175, 0.16, 0.15, 0.14, 0.13],
            population: 60,
            steps: 12,
            seed: 0,
        };
        let runs: Vec<_> = (1..=4)
            .map(|seed| {
                run(
                    &Plan {
                        seed,
                        ..plan.clone()
                    },
                    &mut |_| {},
                )
                .unwrap()
            })
            .collect();
        for (at, &rate) in plan.rungs.iter().enumerate() {
            let (mean, low, high) = combine(&runs, at).unwrap();
            let bound = bound_with(Family::Dk256, 384, rate, 64).unwrap();
            println!("{rate}: {mean:e} ({low:e} to {high:e}), bound {bound:e}");
            assert!(
                low < bound && bound < 2.0 * high,
                "{rate}: {low:e} to {high:e}, bound {bound:e}"
            );
        }
    }
}
