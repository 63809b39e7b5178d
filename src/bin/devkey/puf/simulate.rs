//! `devkey puf simulate`: a device without a chip.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use devkey::simulate::{Chip, Conditions, Fault, Make, Node};
use devkey::{Error, Result as LibraryResult};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};

/// Simulate a PUF device, to try devkey without a chip
///
/// Mounts a directory in which `puf0` is a chip: each opening gives a fresh, noisy reading. What is
/// written into `control` beside it changes noise, temperature, age and faults while it runs. Ends,
/// and takes the device away, with Ctrl-C. Whoever knows the seed has the chip: no key made from it
/// is a secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, as root (mounting wants that):
  devkey puf simulate /run/chip &
  devkey init --puf /run/chip/puf0 --set allow_file=yes chip
  echo noise 0.3 > /run/chip/control     # now a third of the cells flip
  echo fault unplugged > /run/chip/control
Faults: none, missing, busy, io, short, stuck, silent, unplugged, latched.
Next: `devkey puf probe --help`.")]
pub(crate) struct Args {
    /// Directory to mount it on; made where it does not exist
    dir: PathBuf,
    /// Which chip: another seed is another one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size of the chip's memory in bytes
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65536))]
    bytes: u32,
    /// Cells that differ between two readings, in percent
    #[arg(long, default_value = "5", value_parser = percent)]
    noise: f64,
    /// Cells that are one, in percent
    #[arg(long, default_value = "50", value_parser = percent)]
    ones: f64,
    /// How much less of them are one in even words and more in odd ones, in percent
    #[arg(long, default_value = "0", value_parser = percent)]
    structure: f64,
    /// Temperature, °C
    #[arg(long, default_value_t = 25.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Years of use
    #[arg(long, default_value_t = 0.0)]
    age: f64,
    /// What is wrong with it
    #[arg(long, value_parser = fault, default_value = "none")]
    fault: Fault,
}

fn percent(text: &str) -> LibraryResult<f64> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(percent @ 0.0..=100.0) => Ok(percent / 100.0),
        _ => Err(Error::input("a number from 0 to 100 is wanted")),
    }
}

fn fault(name: &str) -> LibraryResult<Fault> {
    let known = Fault::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, fault)| *fault).ok_or_else(|| {
        let known = Fault::ALL.map(|(known, _)| known).join(", ");
        Error::input(format!("one of these is wanted: {known}"))
    })
}

pub(crate) fn run(args: &Args) -> Outcome {
    // Before the mount: a signal between the two would leave it behind.
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| Error::io("waiting for signals", e))?;
    let node = mount(args)?;
    node.fail(args.fault);
    announce(args)?;
    signals.forever().next();
    drop(node);
    Ok(Answer::text(""))
}

fn mount(args: &Args) -> Result<Node> {
    fs::create_dir_all(&args.dir)
        .map_err(|e| Error::io(format!("making {}", args.dir.display()), e))?;
    let chip = Chip::new(&Make {
        seed: args.seed,
        bytes: args.bytes as usize,
        ones: args.ones,
        structure: args.structure,
    });
    let conditions = Conditions {
        noise: args.noise,
        temperature: args.temperature,
        age: args.age,
    };
    // Another run's noise is other noise.
    let mut first = [0; 8];
    first.copy_from_slice(devkey::secret::Secret::random(8)?.expose());
    Node::mount(chip, conditions, u64::from_le_bytes(first) >> 1, &args.dir)
        .map_err(|e| Failure::new(e, "run it as root; the kernel has to have FUSE (/dev/fuse)"))
}

/// At once, and not when it is over.
fn announce(args: &Args) -> Result<()> {
    let device = args.dir.join("puf0");
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "a simulated chip is at {}; Ctrl-C takes it away",
        device.display()
    )
    .and_then(|()| out.flush())
    .map_err(|e| Error::io("writing standard output", e))?;
    Ok(())
}
