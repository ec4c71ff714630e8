//! With the feature `cuda`, compiles `kernels/*.cu` with nvcc and writes `kernel_images.rs`, the table of images that
//! `device::kernels` loads from. Without it there is nothing to do.
//!
//! A file becomes one image: PTX for compute capability 8.0, which the driver compiles for any newer device, and machine
//! code for 9.0 (files named `*_sm90a.cu`: for 9.0a alone), so that on those devices nothing is compiled at start. Both are
//! compressed, to half of what nvcc leaves by itself; the driver unpacks what it loads. A file is compiled again only when it or a header it
//! includes is newer than its image.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;
use std::{env, fs, thread};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rustc-env=KVPROF_GIT_REVISION={}", git_revision().unwrap_or_default());
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"] {
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
    // Checkouts that share a target folder share OUT_DIR too: each has its own images there.
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let folder = out.join(format!("kernels-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let nvcc = find_nvcc();
    let headers = newest(&files_in(&root.join("kernels/include/kvprof"), "cuh")?)?;

    let sources = files_in(&root.join("kernels"), "cu")?;
    let mut images = Vec::new();
    let mut stale = Vec::new();
    for source in sources {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let image = folder.join(format!("{name}.fatbin"));
        if !is_current(&image, &source, headers) {
            stale.push((source, image.clone()));
        }
        images.push((name, image));
    }
    compile_all(&nvcc, &root.join("kernels/include"), stale)?;

    let rows: String =
        images.iter().map(|(name, path)| format!("    ({name:?}, include_bytes!({path:?})),\n")).collect();
    let table = format!(
        "/// Name of each file of kernels/ (without `.cu`) and what it was compiled to.\npub static IMAGES: &[(&str, &[u8])] = &[\n{rows}];\n"
    );
    fs::write(out.join("kernel_images.rs"), table).map_err(|e| format!("writing kernel_images.rs: {e}"))
}

fn find_nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    homes.map(|home| Path::new(&home).join("bin/nvcc")).find(|nvcc| nvcc.is_file()).unwrap_or_else(|| "nvcc".into())
}

fn files_in(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    Ok(files)
}

fn modified(path: &Path) -> Result<SystemTime, String> {
    fs::metadata(path).and_then(|m| m.modified()).map_err(|e| format!("{}: {e}", path.display()))
}

fn newest(files: &[PathBuf]) -> Result<SystemTime, String> {
    files.iter().try_fold(SystemTime::UNIX_EPOCH, |latest, file| Ok(latest.max(modified(file)?)))
}

/// Whether an image is newer than its source, the build script and the headers its dependency file names (all headers
/// where that file is missing).
fn is_current(image: &Path, source: &Path, all_headers: SystemTime) -> bool {
    let named = fs::read_to_string(image.with_extension("d")).ok().and_then(|text| {
        let headers: Vec<PathBuf> =
            text.split_whitespace().filter(|w| w.ends_with(".cuh")).map(PathBuf::from).collect();
        newest(&headers).ok()
    });
    let inputs = [modified(source), modified(Path::new("build.rs")), Ok(named.unwrap_or(all_headers))];
    match modified(image) {
        Ok(made) => inputs.into_iter().all(|input| input.is_ok_and(|input| input < made)),
        Err(_) => false,
    }
}

/// Runs as many compilers side by side as cargo allows jobs.
fn compile_all(nvcc: &Path, include: &Path, stale: Vec<(PathBuf, PathBuf)>) -> Result<(), String> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize).clamp(1, stale.len().max(1));
    let queue = Mutex::new(stale);
    let next = || queue.lock().map_err(|_| "a compiler thread panicked".to_string()).map(|mut queue| queue.pop());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| {
                    while let Some((source, image)) = next()? {
                        compile(nvcc, include, &source, &image)?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Err("a compiler thread panicked".into())))
    })
}

fn compile(nvcc: &Path, include: &Path, source: &Path, image: &Path) -> Result<(), String> {
    let hopper_only = source.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("_sm90a"));
    // The machine code is made from PTX of its own: code that asks for __CUDA_ARCH__ sees 900 there, not 800.
    let targets: &[&str] = if hopper_only {
        &["-gencode", "arch=compute_90a,code=sm_90a"]
    } else {
        &["-gencode", "arch=compute_80,code=compute_80", "-gencode", "arch=compute_90,code=sm_90"]
    };
    let output = Command::new(nvcc)
        .args(["--fatbin", "-O3", "-std=c++20"])
        .args(targets)
        // Machine code too, not only PTX (`--compress-mode=size` saves a little more, but came with CUDA 12.4).
        .args(["-Xfatbin", "-compress-all"])
        .args(["-MD", "-MF"])
        .arg(image.with_extension("d"))
        .arg("-I")
        .arg(include)
        .arg("-o")
        .arg(image)
        .arg(source)
        .output()
        .map_err(|e| {
            format!(
                "cannot run {}: {e}. The feature `cuda` needs NVIDIA's compiler: set CUDA_HOME, or see tools/cuda-toolkit.sh",
                nvcc.display()
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("nvcc failed on {}: {}", source.display(), text.trim().replace('\n', " | ")))
}
