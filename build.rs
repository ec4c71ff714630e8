//! With the feature `cuda`, compiles `kernels/*.cu` with nvcc and writes `kernel_images.rs`, the table of images that
//! `device::kernels` loads from. Without it there is nothing to do.
//!
//! A file becomes one image: PTX for compute capability 8.0, which the driver compiles for any newer device, and machine
//! code for 9.0 (files named `*_sm90a.cu`: for 9.0a alone), so that on those devices nothing is compiled at start. Both are
//! compressed, to half of what nvcc leaves by itself; the driver unpacks what it loads. With KVPROF_PORTABLE_KERNELS in the environment there
//! is PTX only, so that a Hopper device runs what other devices would (what kernels are sized for differs: shared.cuh). An image is named after what it is made of, the
//! text of its file and of all headers it includes, the compiler and its flags, so that it is compiled once and serves
//! every checkout with the same target folder.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    // For the revision's mark of a changed tree.
    for changed in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    println!("cargo:rustc-env=KVPROF_GIT_REVISION={}", git_revision().unwrap_or_default());
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", PORTABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if let Err(message) = build_kernels() {
        println!("cargo::error={message}");
        std::process::exit(1);
    }
}

/// The commit that is being built, `+` behind it where the tree has changes; `None` outside a git checkout.
fn git_revision() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    // Appended to by every commit and checkout.
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let revision = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(format!("{revision}{}", if changed { "+" } else { "" }))
}

fn build_kernels() -> Result<(), String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let nvcc = Nvcc::find(root.join("kernels/include"))?;
    let mut images = Vec::new();
    let mut missing = Vec::new();
    for source in sources(&root.join("kernels"))? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let image = out.join(format!("{name}-{:016x}.fatbin", nvcc.fingerprint(&source)?));
        if !image.is_file() {
            missing.push((source, image.clone()));
        }
        images.push((name, image));
    }
    nvcc.compile_all(missing)?;

    let rows: String =
        images.iter().map(|(name, path)| format!("    ({name:?}, include_bytes!({path:?})),\n")).collect();
    let table = format!(
        "/// Name of each file of kernels/ (without `.cu`) and what it was compiled to.\npub static IMAGES: &[(&str, &[u8])] = &[\n{rows}];\n"
    );
    fs::write(out.join("kernel_images.rs"), table).map_err(|e| format!("writing kernel_images.rs: {e}"))
}

/// The `.cu` files of `folder`, sorted.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "cu")).collect();
    files.sort();
    Ok(files)
}

/// Flags of every compilation. Machine code is compressed too, not only PTX (`--compress-mode=size` saves a little more, but came
/// with CUDA 12.4).
const FLAGS: [&str; 5] = ["--fatbin", "-O3", "-std=c++20", "-Xfatbin", "-compress-all"];

/// Set, no machine code is made but that of files that have no other form.
const PORTABLE: &str = "KVPROF_PORTABLE_KERNELS";

/// What a file is compiled for. The machine code is made from PTX of its own: code that asks for __CUDA_ARCH__ sees 900 there,
/// not 800.
fn targets(source: &Path) -> &'static [&'static str] {
    if source.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("_sm90a")) {
        &["-gencode", "arch=compute_90a,code=sm_90a"]
    } else if env::var_os(PORTABLE).is_some() {
        &["-gencode", "arch=compute_80,code=compute_80"]
    } else {
        &["-gencode", "arch=compute_80,code=compute_80", "-gencode", "arch=compute_90,code=sm_90"]
    }
}

/// The compiler.
struct Nvcc {
    program: PathBuf,
    /// What `--version` prints.
    version: Vec<u8>,
    /// Where headers are.
    include: PathBuf,
}

impl Nvcc {
    fn find(include: PathBuf) -> Result<Self, String> {
        let program = find_nvcc();
        let version = Command::new(&program).arg("--version").output().map_err(|e| {
            format!(
                "cannot run {}: {e}. The feature `cuda` needs NVIDIA's compiler: set CUDA_HOME, or see tools/cuda-toolkit.sh",
                program.display()
            )
        })?;
        Ok(Nvcc { program, version: version.stdout, include })
    }

    /// Hash of all that `source`'s image depends on.
    fn fingerprint(&self, source: &Path) -> Result<u64, String> {
        let mut hasher = DefaultHasher::new();
        (&self.version, FLAGS, targets(source)).hash(&mut hasher);
        for variable in ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"] {
            env::var_os(variable).hash(&mut hasher);
        }
        let mut seen = BTreeSet::new();
        let mut open = vec![source.to_path_buf()];
        while let Some(path) = open.pop() {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let included = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.split('"').next());
            open.extend(included.filter(|name| seen.insert(name.to_string())).map(|name| self.include.join(name)));
            text.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    /// Runs as many compilers side by side as cargo allows jobs.
    fn compile_all(&self, missing: Vec<(PathBuf, PathBuf)>) -> Result<(), String> {
        let jobs =
            env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize).clamp(1, missing.len().max(1));
        let queue = Mutex::new(missing);
        let next = || queue.lock().map_err(|_| "a compiler thread panicked".to_string()).map(|mut queue| queue.pop());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs)
                .map(|_| {
                    scope.spawn(|| {
                        while let Some((source, image)) = next()? {
                            self.compile(&source, &image)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Err("a compiler thread panicked".into())))
        })
    }

    fn compile(&self, source: &Path, image: &Path) -> Result<(), String> {
        // A compiler that is stopped half way must not leave an image behind.
        let unfinished = image.with_extension("part");
        let output = Command::new(&self.program)
            .args(FLAGS)
            .args(targets(source))
            .arg("-I")
            .arg(&self.include)
            .arg("-o")
            .arg(&unfinished)
            .arg(source)
            .output()
            .map_err(|e| format!("cannot run {}: {e}", self.program.display()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("nvcc failed on {}: {}", source.display(), text.trim().replace('\n', " | ")));
        }
        fs::rename(&unfinished, image).map_err(|e| format!("{}: {e}", image.display()))
    }
}

fn find_nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    homes.map(|home| Path::new(&home).join("bin/nvcc")).find(|nvcc| nvcc.is_file()).unwrap_or_else(|| "nvcc".into())
}
