//! Needles of two sides that tried several contexts, not all of them the same: a quantized cache has no score at a context of which it
//! read nothing from codes.

use std::collections::BTreeSet;

use crate::report::quality::Quality;
use crate::report::run::Run;
use crate::report::scoring;
use crate::schema::{Needle, NeedleScore, Paired};

/// Two runs as far as they have needles at the same contexts.
pub struct Common {
    /// Base and new, with the needles of those contexts alone.
    pub sides: [Run; 2],
    /// Those contexts, in words.
    pub place: String,
    /// The contexts that only base has, and that only new has, in words; `None` where there are none.
    pub alone: [Option<String>; 2],
}

/// What `base` and `new` have in common; `None` where they share no context, or were not tried alike at those that they share.
pub fn common(base: &Run, new: &Run) -> Option<Common> {
    let [of_base, of_new] = [contexts(base)?, contexts(new)?];
    let shared: BTreeSet<usize> = of_base.intersection(&of_new).copied().collect();
    let sides = [at(base, &shared)?, at(new, &shared)?];
    let alike = !shared.is_empty() && scoring::needle(&sides[0].result) == scoring::needle(&sides[1].result);
    let alone = [&of_base, &of_new].map(|own| {
        let alone: BTreeSet<usize> = own.difference(&shared).copied().collect();
        (!alone.is_empty()).then(|| words(&alone))
    });
    alike.then(|| Common { sides, place: words(&shared), alone })
}

fn contexts(run: &Run) -> Option<BTreeSet<usize>> {
    let needle = run.result.benchmarks.needle_in_haystack.as_ref()?;
    Some(needle.per_context.keys().filter_map(|context| context.parse().ok()).collect())
}

fn words(contexts: &BTreeSet<usize>) -> String {
    let contexts: Vec<String> = contexts.iter().map(usize::to_string).collect();
    format!("at {} tokens", contexts.join(" and "))
}

/// `run` with the needles of `contexts` alone.
fn at(run: &Run, contexts: &BTreeSet<usize>) -> Option<Run> {
    let mut run = run.clone();
    let blocks = &mut run.result.benchmarks;
    let needle = blocks.needle_in_haystack.as_mut()?;
    needle.per_context.retain(|context, _| context.parse().is_ok_and(|context| contexts.contains(&context)));
    let sum = |of: fn(&NeedleScore) -> usize| needle.per_context.values().map(of).sum::<usize>();
    let (trials, successes) = (sum(|score| score.trials), sum(|score| score.successes));
    *needle = Needle {
        total_trials: trials,
        successes,
        success_rate: if trials == 0 { 0.0 } else { successes as f64 / trials as f64 },
        // These were counted over all contexts.
        paired: Paired::default(),
        reference_successes: None,
        ..needle.clone()
    };
    if let Some(trials) = &mut blocks.needle_in_haystack_trials {
        trials.retain(|trial| contexts.contains(&trial.context_length));
    }
    run.quality.needle = Quality::of(&run.result, None).needle;
    Some(run)
}
