//! Benchmarks of quality, run through real caches: on the built-in model everywhere, on SmolLM2 and published data where
//! these are present.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]
#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

mod support;

#[path = "quality/hub_data.rs"]
mod hub_data;
#[path = "quality/planted.rs"]
mod planted;
#[path = "quality/published.rs"]
mod published;
#[path = "quality/questions.rs"]
mod questions;
#[path = "quality/text_scores.rs"]
mod text_scores;

use kvprof::base::progress::Silent;
use kvprof::bench::{self, Block, Context, Readings, References, Settings};
use kvprof::measure::energy::EnergyMeter;
use kvprof::model::attention;
use kvprof::model::{LoadOptions, Subject};
use kvprof::schema::Benchmarks;
use kvprof::{Error, Result};

/// A model with the scores of its unquantized cache and the data that it has read.
pub struct Bench {
    pub subject: Subject,
    pub settings: Settings,
    pub references: References,
    pub readings: Readings,
    pub machine: Option<String>,
}

impl Bench {
    pub fn of(model: &str) -> Self {
        let mut options = LoadOptions::new(model);
        options.device = "cpu".parse().unwrap();
        let subject = Subject::load(&options).unwrap();
        Bench {
            subject,
            settings: Settings::default(),
            references: References::default(),
            readings: Readings::default(),
            machine: None,
        }
    }

    /// The built-in model, by the folder it is compiled from.
    pub fn builtin() -> Self {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin");
        let mut bench = Bench::of(folder.to_str().unwrap());
        bench.settings.ppl_data = Some("builtin".into());
        bench
    }

    /// Runs a benchmark to its end.
    pub fn run(&mut self, benchmark: &str, quant: &str) -> Result<Benchmarks> {
        self.run_on(benchmark, quant, Benchmarks::default(), usize::MAX).1
    }

    /// Goes on from `saved` and is stopped when it would keep block number `stop_at`; what was kept until then comes first.
    pub fn run_on(
        &mut self,
        benchmark: &str,
        quant: &str,
        saved: Benchmarks,
        stop_at: usize,
    ) -> (Benchmarks, Result<Benchmarks>) {
        let spec = quant.parse().unwrap();
        let attention = attention::new("eager").unwrap();
        let mut kept = saved.clone();
        let mut count = 0;
        let mut context = Context {
            subject: &self.subject,
            spec: &spec,
            attention: attention.as_ref(),
            settings: &self.settings,
            progress: &Silent,
            copy_gb_s: None,
            machine: self.machine.as_deref(),
            energy: &EnergyMeter::absent("a test measures none"),
            saved: &saved,
            references: &mut self.references,
            readings: &mut self.readings,
        };
        let all = bench::all();
        let benchmark = all.iter().find(|b| b.name() == benchmark).unwrap();
        let result = benchmark.run(&mut context, &mut |block| {
            if count == stop_at {
                return Err(Error::Interrupted);
            }
            count += 1;
            keep(&mut kept, block);
            Ok(())
        });
        (kept.clone(), result.map(|()| kept))
    }
}

fn keep(kept: &mut Benchmarks, block: Block) {
    if let Block::Score { name, blocks, .. } = block {
        kept.copy_from(name, &blocks);
    }
}

/// Without wall times, which differ from run to run.
pub fn untimed(mut kept: Benchmarks) -> serde_json::Value {
    for score in [&mut kept.mmlu, &mut kept.math].into_iter().flatten() {
        score.elapsed_s = None;
    }
    serde_json::to_value(kept).unwrap()
}
