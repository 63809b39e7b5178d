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
    /// Paths of a second decoder that is tried where the first fails, at the last rung alone.
    pub deeper: Option<usize>,
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
    /// P(the second decoder fails, too | B here), where it was tried. Times `failure` it is the
    /// probability that both fail: no more is assumed than that the population is B's.
    pub deeper: Option<f64>,
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
        plan,
        free: code.information().collect(),
        random: Random::new(plan.seed),
    };
    let (mut states, mut rung) = walk.begin(first)?;
    seen(&rung);
    let mut rungs = vec![rung];
    for &rate in rest {
        states.retain(|state| walk.fails(state, rate));
        if states.is_empty() {
            break;
        }
        (states, rung) = walk.descend(&states, rate, &rung);
        if rest.last() == Some(&rate) {
            rung.deeper = walk.deeper(&states, rate);
        }
        seen(&rung);
        rungs.push(rung);
    }
    Ok(rungs)
}

/// The estimate of several runs for the rung at `at`, see [`mean`]. None where one ended before.
pub fn combine(runs: &[Vec<Rung>], at: usize) -> Option<(f64, f64, f64)> {
    let found: Option<Vec<f64>> = runs.iter().map(|run| Some(run.get(at)?.failure)).collect();
    mean(&found?)
}

/// The mean of several runs' estimates, and the 95 % interval of Cox for the mean of a log-normal
/// variable, as products of this kind nearly are. None with fewer than three, or with a zero.
pub fn mean(found: &[f64]) -> Option<(f64, f64, f64)> {
    // Quantiles 0.975 of Student's t for 2 and more degrees of freedom.
    const T: [f64; 10] = [
        4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201,
    ];
    let t = T.get(found.len().checked_sub(3)?.min(T.len() - 1))?;
    let n = found.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n;
    let log = mean(&mut found.iter().map(|found| found.ln()));
    let squares = found.iter().map(|found| (found.ln() - log).powi(2));
    let variance = squares.sum::<f64>() / (n - 1.0);
    let half = t * (variance / n + variance * variance / (2.0 * (n - 1.0))).sqrt();
    let middle = log + variance / 2.0;
    let mean = mean(&mut found.iter().copied());
    let positive = found.iter().all(|&found| found > 0.0);
    positive.then_some((mean, (middle - half).exp(), (middle + half).exp()))
}

/// A point of the probability space: each cell's number, and u with zeros at frozen positions.
#[derive(Clone)]
struct State {
    cells: Vec<u32>,
    u: std::rc::Rc<Bits>,
}

struct Walk<'a> {
    code: &'a Code,
    plan: &'a Plan,
    free: Vec<usize>,
    random: Random,
}

impl Walk<'_> {
    /// Draws states until enough of them fail.
    fn begin(&mut self, rate: f64) -> Result<(Vec<State>, Rung)> {
        let (mut states, mut drawn) = (Vec::new(), 0);
        while states.len() < self.plan.population {
            if drawn / 10_000 > states.len() {
                let reason = "at the first rung, failures are too rare to be counted";
                return Err(Error::input(reason));
            }
            let cells = (0..self.code.len()).map(|_| self.random.half()).collect();
            let u = self.message();
            let state = State { cells, u };
            drawn += 1;
            if self.fails(&state, rate) {
                states.push(state);
            }
        }
        // The unbiased estimate where sampling stops at a number of failures.
        let failure = (states.len() as f64 - 1.0).max(0.5) / (drawn as f64 - 1.0).max(1.0);
        let rung = Rung {
            rate,
            failure,
            kept: failure,
            back: 1.0,
            moved: 1.0,
            deeper: None,
        };
        Ok((states, rung))
    }

    /// From the rung `above` to the next, where so many of its states fail, too.
    fn descend(&mut self, survivors: &[State], rate: f64, above: &Rung) -> (Vec<State>, Rung) {
        let count = self.plan.population as f64;
        let kept = survivors.len() as f64 / count;
        let mut states = self.multiplied(survivors);
        let moved = self.moved(&mut states, rate);
        let back = states.iter().filter(|state| self.fails(state, above.rate));
        // Where none fails above, half a state is taken for it: the quotient must be finite.
        let back = (back.count() as f64).max(0.5) / count;
        let failure = above.failure * kept / back;
        let rung = Rung {
            rate,
            failure,
            kept,
            back,
            moved,
            deeper: None,
        };
        (states, rung)
    }

    /// Of the states at the last rung, where the second decoder fails as well.
    fn deeper(&self, states: &[State], rate: f64) -> Option<f64> {
        let paths = self.plan.deeper?;
        let fail = states
            .iter()
            .filter(|state| self.fails_with(state, rate, paths));
        Some(fail.count() as f64 / states.len() as f64)
    }

    fn message(&mut self) -> std::rc::Rc<Bits> {
        let mut u = Bits::zeros(self.code.len());
        for &at in &self.free {
            u.set(at, self.random.word() >> 63 == 1);
        }
        std::rc::Rc::new(u)
    }

    fn fails(&self, state: &State, rate: f64) -> bool {
        self.fails_with(state, rate, self.plan.paths)
    }

    fn fails_with(&self, state: &State, rate: f64, paths: usize) -> bool {
        let limit = threshold(rate);
        let mut noise = Bits::zeros(self.code.len());
        for (at, &cell) in state.cells.iter().enumerate() {
            noise.set(at, u64::from(cell) < limit);
        }
        self.code.misses(&state.u, &noise, paths)
    }

    /// A whole population of copies, of each survivor as many but for one.
    fn multiplied(&mut self, survivors: &[State]) -> Vec<State> {
        let start = self.random.half() as usize % survivors.len().max(1);
        let copies = survivors.iter().cycle().skip(start);
        copies.take(self.plan.population).cloned().collect()
    }

    /// Moves each state; the share of steps that were taken.
    fn moved(&mut self, states: &mut [State], rate: f64) -> f64 {
        let mut taken = 0usize;
        for state in states.iter_mut() {
            for _ in 0..self.plan.steps {
                let proposed = self.proposed(state);
                if self.fails(&proposed, rate) {
                    *state = proposed;
                    taken += 1;
                }
            }
        }
        taken as f64 / (states.len() * self.plan.steps).max(1) as f64
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

    /// Splitting finds for successive cancellation what the bound allows, down to where nothing could be
    /// counted in a test: the bound at the last rung is 1e-4.
    ///
    /// Fails with survivors that are not moved (steps: 0), and with steps that are taken whether the
    /// decoder fails or not.
    #[test]
    fn splitting_agrees_with_the_bound() {
        let plan = Plan {
            family: Family::Dk256,
            k: 384,
            paths: 1,
            deeper: None,
            rungs: (0..10).map(|n| 0.19 - 0.005 * f64::from(n)).collect(),
            population: 60,
            steps: 8,
            seed: 0,
        };
        let runs = (1..=3).map(|seed| {
            let plan = Plan {
                seed,
                ..plan.clone()
            };
            run(&plan, &mut |_| {}).unwrap()
        });
        let runs: Vec<_> = runs.collect();
        for (at, &rate) in plan.rungs.iter().enumerate() {
            let (_, low, _) = combine(&runs, at).unwrap();
            let bound = bound_with(Family::Dk256, 384, rate, 64).unwrap();
            assert!(low < bound, "{rate}: at least {low:e}, bound {bound:e}");
        }
    }
}
