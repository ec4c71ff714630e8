//! The model under test: everything a benchmark needs of it, loaded once.

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::builtin;
use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::families::{ConfigJson, Names, read_config};
use super::gguf_source::GgufFiles;
use super::hub::{Hub, HubRepo};
use super::load_options::{LoadOptions, WeightsKind};
use super::source::{ModelFiles, ModelSource};
use super::tokenizer::Tokenizer;
use super::weights::Weights;
use super::weights::dummy::DummyWeights;
use super::weights::gguf::{GgufFile, GgufWeights};
use super::weights::safetensors::SafetensorsWeights;
use crate::base::hex::hex;
use crate::{Error, Result, device};

/// What names the parts of a model that its configuration does not describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The hub's commit, or the SHA-256 of local weight files; `None` for random ones of no commit.
    pub weights: Option<String>,
    /// The commit's file that holds the weights, of a model in parts the first, where it is GGUF of the hub.
    pub gguf_file: Option<String>,
    /// [`Tokenizer::sha256`].
    pub tokenizer_sha256: Option<String>,
}

/// A loaded model with its tokenizer and its identity.
#[derive(Debug)]
pub struct Subject {
    /// The model.
    pub decoder: Decoder,
    /// Or why there is none, in words: what needs no tokenizer can be measured without.
    tokenizer: std::result::Result<Tokenizer, String>,
    /// Where the model is.
    pub device: Device,
    /// Dtype of weights, activations, and of an unquantized cache.
    pub dtype: DType,
    /// `--model` as given.
    pub model: String,
    /// Trained or dummy.
    pub weights: WeightsKind,
    /// Commit of the hub.
    pub revision: Option<String>,
    /// Of the weight files, in order, when they are local.
    pub weights_sha256: Option<String>,
    /// [`Identity::gguf_file`].
    pub gguf_file: Option<String>,
    /// Most memory in tensors while the weights were loaded; `None` on a CPU.
    pub load_peak_bytes: Option<u64>,
}

impl Subject {
    /// Finds, reads and checks everything.
    ///
    /// # Errors
    /// [`Error::Usage`], [`Error::File`] or [`Error::Io`], each naming what is wrong and what to do, when the model cannot be
    /// had as asked for; [`Error::OutOfMemory`] when it does not fit.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let source = options.source()?;
        let device = options.device.open()?;
        let trained = options.weights == WeightsKind::Trained;
        match source {
            ModelSource::Builtin => Self::from_builtin(options, device),
            ModelSource::Gguf(path) => Self::from_gguf(options, GgufFiles::at(path), device),
            ModelSource::HubGguf { id, wanted } => {
                Self::from_gguf(options, gguf_on_hub(options, &id, &wanted)?, device)
            }
            ModelSource::Config(path) => {
                let files = ModelFiles { config: path, ..Default::default() };
                Self::from_files(options, &files, device)
            }
            ModelSource::Folder(folder) => Self::from_files(options, &ModelFiles::in_folder(&folder, trained)?, device),
            ModelSource::Hub(id) => {
                let hub = Hub::from_env(options.progress)?;
                let repo = HubRepo::model(id, options.revision.as_deref());
                Self::from_files(options, &ModelFiles::on_hub(&hub, &repo, trained)?, device)
            }
        }
    }

    /// The configuration of a model by its config.json alone, to which other files add tokens that end a text, or its GGUF file.
    ///
    /// # Errors
    /// As [`load`](Subject::load), as far as the configuration goes.
    pub fn shape(options: &LoadOptions) -> Result<DecoderConfig> {
        let config = match ModelSource::parse(&options.model)? {
            ModelSource::Builtin => builtin::config()?.0,
            ModelSource::Gguf(path) => GgufFile::open(&path)?.config()?.0,
            ModelSource::HubGguf { id, wanted } => {
                GgufFile::open(&gguf_on_hub(options, &id, &wanted)?.path)?.config()?.0
            }
            ModelSource::Config(config) => read_of(&config)?.0,
            ModelSource::Folder(folder) => shape_of(options, &ModelFiles::in_folder(&folder, false)?.config)?,
            ModelSource::Hub(id) => {
                let repo = HubRepo::model(id, options.revision.as_deref());
                shape_of(options, &ModelFiles::config_on_hub(&Hub::from_env(false)?, &repo)?)?
            }
        };
        Ok(if options.sliding_window { config } else { config.without_sliding_window() })
    }

    /// What names a model's weights and tokenizer, without loading the weights.
    ///
    /// # Errors
    /// As [`load`](Subject::load), as far as finding and reading the files goes.
    pub fn identity_of(options: &LoadOptions) -> Result<Identity> {
        let trained = options.weights == WeightsKind::Trained;
        let sha256_of = |files: &[PathBuf]| trained.then(|| sha256_of(files)).transpose();
        let tokenizer_of = |files: &ModelFiles| -> Result<Option<String>> {
            Ok(Tokenizer::from_files(files)?.and_then(|tokenizer| tokenizer.sha256()))
        };
        Ok(match ModelSource::parse(&options.model)? {
            ModelSource::Hub(id) => {
                let repo = HubRepo::model(id, options.revision.as_deref());
                let files = ModelFiles::on_hub(&Hub::from_env(false)?, &repo, false)?;
                Identity { tokenizer_sha256: tokenizer_of(&files)?, weights: files.revision, gguf_file: None }
            }
            ModelSource::HubGguf { id, wanted } => {
                let GgufFiles { revision, name, .. } = gguf_on_hub(options, &id, &wanted)?;
                Identity { weights: revision, gguf_file: name, tokenizer_sha256: None }
            }
            ModelSource::Builtin => {
                let weights = trained.then(builtin::weights_sha256);
                Identity { weights, tokenizer_sha256: builtin::tokenizer()?.sha256(), gguf_file: None }
            }
            ModelSource::Gguf(path) => {
                Identity { weights: sha256_of(&GgufFile::open(&path)?.paths())?, ..Identity::default() }
            }
            ModelSource::Folder(folder) => {
                let files = ModelFiles::in_folder(&folder, trained)?;
                Identity {
                    weights: sha256_of(&files.weights)?,
                    tokenizer_sha256: tokenizer_of(&files)?,
                    gguf_file: None,
                }
            }
            ModelSource::Config(_) => Identity::default(),
        })
    }

    fn from_builtin(options: &LoadOptions, device: Device) -> Result<Self> {
        let (config, names) = builtin::config()?;
        let tokenizer = Ok(builtin::tokenizer()?);
        let (weights, weights_sha256): (Box<dyn Weights>, _) = match options.weights {
            WeightsKind::Dummy => (Box::new(DummyWeights::default()), None),
            WeightsKind::Trained => (Box::new(builtin::weights()?), Some(builtin::weights_sha256())),
        };
        let parts = Parts { config, names, tokenizer, revision: None, weights_sha256, gguf_file: None };
        Self::build(options, parts, weights.as_ref(), device)
    }

    fn from_files(options: &LoadOptions, files: &ModelFiles, device: Device) -> Result<Self> {
        let tokenizer = Tokenizer::from_files(files)?;
        let (config, names) = config_of(files, tokenizer.as_ref())?;
        let tokenizer =
            tokenizer.ok_or_else(|| format!("{} has no tokenizer.json, which this benchmark needs", options.model));
        if options.weights == WeightsKind::Dummy {
            let revision = files.revision.clone();
            let parts = Parts { config, names, tokenizer, revision, weights_sha256: None, gguf_file: None };
            return Self::build(options, parts, &DummyWeights::default(), device);
        }
        refuse_quantized(&files.config)?;
        let weights = SafetensorsWeights::open(&files.weights)?;
        // A commit of the hub names the content already.
        let weights_sha256 =
            if files.revision.is_none() { Some(known_or_sha256_of(options, &files.weights)?) } else { None };
        let revision = files.revision.clone();
        let parts = Parts { config, names, tokenizer, revision, weights_sha256, gguf_file: None };
        Self::build(options, parts, &weights, device)
    }

    fn from_gguf(options: &LoadOptions, files: GgufFiles, device: Device) -> Result<Self> {
        let file = GgufFile::open(&files.path)?;
        let (config, names) = file.config()?;
        let tokenizer = Tokenizer::from_gguf(&file).map_err(|error| error.to_string());
        let GgufFiles { revision, name: gguf_file, .. } = files;
        let parts = Parts { config, names, tokenizer, revision, weights_sha256: None, gguf_file };
        if options.weights == WeightsKind::Dummy {
            return Self::build(options, parts, &DummyWeights::default(), device);
        }
        let weights = GgufWeights::new(&file, &parts.config);
        // A commit and a file of it name the content already.
        let weights_sha256 =
            if parts.revision.is_none() { Some(known_or_sha256_of(options, &file.paths())?) } else { None };
        Self::build(options, Parts { weights_sha256, ..parts }, &weights, device)
    }

    /// Builds the decoder of `parts` from `weights`.
    fn build(options: &LoadOptions, parts: Parts, weights: &dyn Weights, device: Device) -> Result<Self> {
        let Parts { mut config, names, tokenizer, revision, weights_sha256, gguf_file } = parts;
        if !options.sliding_window {
            config = config.without_sliding_window();
        }
        let tokenizer = match tokenizer {
            Ok(tokenizer) => Ok(tokenizer.limit_to(config.vocab)?),
            Err(why) => Err(why),
        };
        let dtype = options.dtype.resolve(config.stored_dtype, &device);
        if device.is_cuda() && dtype == DType::F32 {
            return Err(Error::usage("on a GPU the cache is made of f16 or bf16; choose one of them, or --device cpu"));
        }
        if let Some(reason) = config.unserved_on_gpu().filter(|_| device.is_cuda()) {
            return Err(Error::usage(format!("{}: {reason}", options.model)));
        }
        let bar = loading_bar(options.progress);
        let mut on_layer = |done: usize, of: usize| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        };
        device::reset_memory_peaks(&device)?;
        let decoder = Decoder::load(config, &names, weights, dtype, &device, &mut on_layer);
        bar.finish_and_clear();
        Ok(Subject {
            decoder: decoder?,
            load_peak_bytes: device::memory(&device)?.map(|memory| memory.used_peak_bytes),
            tokenizer,
            device,
            dtype,
            model: options.model.clone(),
            weights: options.weights,
            revision,
            weights_sha256,
            gguf_file,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &DecoderConfig {
        self.decoder.config()
    }

    /// What names its weights and its tokenizer.
    pub fn identity(&self) -> Identity {
        Identity {
            weights: self.revision.clone().or_else(|| self.weights_sha256.clone()),
            gguf_file: self.gguf_file.clone(),
            tokenizer_sha256: self.tokenizer.as_ref().ok().and_then(Tokenizer::sha256),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Usage`] when the model came without one, or a GGUF file with one of an unknown kind.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(Error::usage)
    }

    /// Bytes of the weights as loaded.
    pub fn weight_bytes(&self) -> u64 {
        self.decoder.parameters() * self.dtype.size_in_bytes() as u64
    }
}

/// The GGUF model `wanted` of the repository `id`.
fn gguf_on_hub(options: &LoadOptions, id: &str, wanted: &str) -> Result<GgufFiles> {
    let repo = HubRepo::model(id, options.revision.as_deref());
    GgufFiles::on_hub(&Hub::from_env(options.progress)?, &repo, wanted)
}

fn text_of(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// The configuration in a model's files, with all the tokens that end a text, and the names of its tensors.
fn config_of(files: &ModelFiles, tokenizer: Option<&Tokenizer>) -> Result<(DecoderConfig, Names)> {
    let (mut config, names) = read_of(&files.config)?;
    if let Some(path) = &files.generation_config {
        config.eos.extend(ConfigJson::parse(path, &text_of(path)?)?.token_ids("eos_token_id")?);
    }
    config.eos.extend(tokenizer.and_then(Tokenizer::end));
    config.eos.sort_unstable();
    config.eos.dedup();
    Ok((config, names))
}

/// The configuration in a config.json, and the names of the tensors.
fn read_of(config: &Path) -> Result<(DecoderConfig, Names)> {
    read_config(config, &text_of(config)?)
}

/// The configuration alone.
fn shape_of(options: &LoadOptions, config: &Path) -> Result<DecoderConfig> {
    if options.weights == WeightsKind::Trained {
        refuse_quantized(config)?;
    }
    Ok(read_of(config)?.0)
}

/// Refuses weights that are quantized in a form which cannot be read.
fn refuse_quantized(config: &Path) -> Result<()> {
    match ConfigJson::parse(config, &text_of(config)?)?.weight_quantization() {
        Some(method) => {
            let message = format!("says that {method} quantized the weights, which cannot be read; give the original");
            Err(Error::file(config, message))
        }
        None => Ok(()),
    }
}

/// What a source gives besides weights.
struct Parts {
    config: DecoderConfig,
    names: Names,
    tokenizer: std::result::Result<Tokenizer, String>,
    revision: Option<String>,
    weights_sha256: Option<String>,
    gguf_file: Option<String>,
}

fn loading_bar(shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("loading {wide_bar} {pos}/{len} layers, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The digest of `files`, unless the caller has it from elsewhere.
fn known_or_sha256_of(options: &LoadOptions, files: &[PathBuf]) -> Result<String> {
    options.weights_sha256.clone().map_or_else(|| sha256_of(files), Ok)
}

/// SHA-256 over the contents of `files`, one after the other, in lower-case hexadecimal.
fn sha256_of(files: &[PathBuf]) -> Result<String> {
    let mut hasher = Sha256::new();
    for path in files {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        std::io::copy(&mut file, &mut hasher).map_err(|e| Error::io(path, e))?;
    }
    Ok(hex(&hasher.finalize()))
}
