//! What to load, and how, as the command line and result files ask for it.

use super::placement::{DeviceChoice, DtypeChoice};
use super::source::ModelSource;
use crate::{Error, Result};

/// `--weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightsKind {
    /// As trained.
    #[default]
    Trained,
    /// Random, in the configuration's shapes: for speed and memory; a quality benchmark must refuse them.
    Dummy,
}

impl WeightsKind {
    /// Refuses random weights.
    ///
    /// # Errors
    /// [`Error::Usage`] when the weights are dummy: `what`, a measurement of quality, would mean nothing.
    pub fn require_trained(self, what: &str) -> Result<()> {
        match self {
            WeightsKind::Trained => Ok(()),
            WeightsKind::Dummy => Err(Error::usage(format!(
                "{what} measures quality, and --weights dummy has none; give trained weights or leave {what} out"
            ))),
        }
    }
}

/// What to load, and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `--model`: see [`ModelSource`].
    pub model: String,
    /// `--revision` of a hub repository.
    pub revision: Option<String>,
    /// `--dtype`.
    pub dtype: DtypeChoice,
    /// `--device`.
    pub device: DeviceChoice,
    /// `--weights`.
    pub weights: WeightsKind,
    /// `--sliding-window`: false attends to everything, whatever the configuration says.
    pub sliding_window: bool,
    /// Whether to show bars for downloads and loading.
    pub progress: bool,
    /// SHA-256 of the weight files, where it is known already: that of a large model takes a while.
    pub weights_sha256: Option<String>,
}

impl LoadOptions {
    /// The defaults of the command line, without progress bars.
    pub fn new(model: impl Into<String>) -> Self {
        LoadOptions {
            model: model.into(),
            revision: None,
            dtype: DtypeChoice::default(),
            device: DeviceChoice::default(),
            weights: WeightsKind::default(),
            sliding_window: true,
            progress: false,
            weights_sha256: None,
        }
    }

    /// Where the model is, as far as the request tells.
    ///
    /// # Errors
    /// As [`ModelSource::parse`]; [`Error::Usage`] when a revision is asked for of what is not of the hub, and [`Error::File`] when
    /// trained weights are of a configuration alone.
    pub fn source(&self) -> Result<ModelSource> {
        let source = ModelSource::parse(&self.model)?;
        match (&source, &self.revision) {
            (ModelSource::Hub(_) | ModelSource::HubGguf { .. }, _) | (_, None) => {}
            (_, Some(revision)) => return Err(not_of_the_hub(&self.model, revision, &source)),
        }
        match &source {
            ModelSource::Config(path) if self.weights == WeightsKind::Trained => Err(Error::file(
                path,
                "is a configuration without weights; give the model's folder, or measure the cost of random ones: kvprof run --weights dummy",
            )),
            _ => Ok(source),
        }
    }
}

/// Why `model` has no `revision`, which a command line or a result file gives.
fn not_of_the_hub(model: &str, revision: &str, source: &ModelSource) -> Error {
    let why = match source {
        ModelSource::Builtin => format!("{model} is inside the program"),
        _ => format!(
            "{model} is a file or folder here, which comes before a repository of that name: to have the hub's, work in another folder, \
             or give this one another name"
        ),
    };
    Error::usage(format!(
        "revision {revision} is of the hub, and {why}. To take it, leave out --revision; a result file's is left out where --model names \
         the model"
    ))
}
