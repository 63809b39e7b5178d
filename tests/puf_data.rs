//! The fuzzy extractor on start-up values of real chips: what a simulation cannot show.
//!
//! The readings are public and not part of this repository: boards A and F of
//! github.com/TimothyClaeys/SramAnalyzer at 0f4d908 (MIT; `SRAM_PRINTS/{Andrzej,Andrzejcold,Franck}.dev`,
//! Intel HEX) and chip L45 of github.com/bkorecic/scum-sram-evaluation at 931f15c (BSD-3;
//! `results/L45-20240210-103050.pickle`). They are looked for in `$DEVKEY_PUF_DATA`, else in
//! `../shared/data/puf`, as files `board.bin`: the number of readings and their length, 32 bits each,
//! little-endian, and the readings. `board_m18.bin` is the same board at −18 °C, and so with any name
//! that begins with a board's and an underscore.
//!
//! Where they are absent, the tests say so and pass, unless `DEVKEY_REQUIRE_PUF_DATA` is set, as in
//! CI. `make puf-data` runs them optimised, on all windows in all tests (`DEVKEY_PUF_SWEEP`), and
//! prints what was counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot go on has failed; figures are printed"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{env, fs, thread};

use devkey::Error;
use devkey::fuzzy::{
    Helper, Profile, Source, SourceKind, enroll, enroll_with_map, measure, reconstruct, refresh,
};
use devkey::secret::Secret;

/// One power-up.
type Reading = Vec<u8>;

/// A chip.
struct Board {
    name: String,
    /// At room temperature.
    readings: Vec<Reading>,
    /// In other conditions.
    others: Vec<Reading>,
}

impl Board {
    fn windows(&self, profile: Profile) -> usize {
        self.readings[0].len() / profile.response_len()
    }
}

/// One aligned window of a reading.
fn window(profile: Profile, reading: &Reading, at: usize) -> Secret {
    let len = profile.response_len();
    Secret::new(reading[at * len..][..len].to_vec())
}

fn source(profile: Profile, at: usize) -> Source {
    Source {
        kind: SourceKind::File,
        offset: (at * profile.response_len()) as u64,
    }
}

/// Helper data and root from the first reading.
fn enrolled(board: &Board, profile: Profile, at: usize) -> (Helper, Secret) {
    let first = window(profile, &board.readings[0], at);
    let enrolment = enroll(profile, &[first], &source(profile, at));
    let enrolment =
        enrolment.unwrap_or_else(|e| panic!("{} window {at} of {profile}: {e}", board.name));
    // What is stored is what comes back.
    let helper = Helper::parse(enrolment.helper.encode()).unwrap();
    (helper, enrolment.root)
}

fn directory() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/puf");
    env::var_os("DEVKEY_PUF_DATA").map_or(default, PathBuf::from)
}

/// All boards; none where the readings are absent.
fn boards() -> &'static [Board] {
    static BOARDS: OnceLock<Vec<Board>> = OnceLock::new();
    BOARDS.get_or_init(|| {
        let boards = read_boards(&directory());
        if boards.is_empty() {
            absent(&directory());
        }
        boards
    })
}

fn absent(dir: &Path) {
    let text = format!(
        "\nNO READINGS OF REAL CHIPS in {}: nothing was tested on any. They are public:\n\
         github.com/TimothyClaeys/SramAnalyzer (MIT), github.com/bkorecic/scum-sram-evaluation\n\
         (BSD-3). The head of tests/puf_data.rs says which files and in what form; set\n\
         DEVKEY_PUF_DATA to where they are.\n",
        dir.display()
    );
    assert!(env::var_os("DEVKEY_REQUIRE_PUF_DATA").is_none(), "{text}");
    // Past the harness, which shows the output of failed tests only.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

fn read_boards(dir: &Path) -> Vec<Board> {
    let mut files: BTreeMap<String, Vec<Reading>> = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "bin") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.insert(name, readings(&fs::read(&path).unwrap()));
        }
    }
    let is_of = |name: &str, board: &str| {
        let rest = name.strip_prefix(board);
        rest.is_some_and(|rest| rest.starts_with('_'))
    };
    let names: Vec<String> = files.keys().cloned().collect();
    let first = |name: &&String| !names.iter().any(|board| is_of(name, board));
    let board = |name: &String| Board {
        name: name.clone(),
        readings: files[name].clone(),
        others: files
            .iter()
            .filter(|(other, _)| is_of(other, name))
            .flat_map(|(_, readings)| readings.clone())
            .collect(),
    };
    names.iter().filter(first).map(board).collect()
}

fn readings(file: &[u8]) -> Vec<Reading> {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let (count, len) = (number(0), number(4));
    assert_eq!(file.len(), 8 + count * len);
    file[8..].chunks(len).map(<[u8]>::to_vec).collect()
}

/// Every window, or for a quick run every so many.
fn step(every: usize) -> usize {
    match env::var_os("DEVKEY_PUF_SWEEP") {
        Some(_) => 1,
        None => every,
    }
}

/// Runs a job for each number below `count`, on all processors.
fn in_parallel(count: usize, job: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed))
                    && at < count
                {
                    job(at);
                }
            });
        }
    });
}

/// What was counted.
#[derive(Default)]
struct Tally {
    reconstructions: usize,
    failures: usize,
    decoders: BTreeMap<String, usize>,
    most_flips: usize,
}

/// Each aligned window of each board: the first reading enrols, every other one gives the root
/// back, also at −18 °C. Fails with half of each profile's limit of distance.
fn every_reading_of_every_window(profile: Profile) {
    for board in boards() {
        let tally = Mutex::new(Tally::default());
        in_parallel(board.windows(profile), |at| {
            let (helper, root) = enrolled(board, profile, at);
            for reading in board.readings[1..].iter().chain(&board.others) {
                let found = reconstruct(&helper, &window(profile, reading, at));
                let mut tally = tally.lock().unwrap();
                tally.reconstructions += 1;
                match found {
                    Ok(found) => {
                        assert_eq!(found.root.expose(), root.expose());
                        let decoder = format!("{:?}", found.decoder);
                        *tally.decoders.entry(decoder).or_default() += 1;
                        tally.most_flips = tally.most_flips.max(found.flips);
                    }
                    Err(_) => tally.failures += 1,
                }
            }
        });
        let tally = tally.into_inner().unwrap();
        let percent = tally.most_flips as f64 / (profile.response_len() * 8) as f64 * 100.0;
        println!(
            "{profile} {}: {} reconstructions of {} windows, {} failures; {:?}; at most {percent:.1} % flips",
            board.name,
            tally.reconstructions,
            board.windows(profile),
            tally.failures,
            tally.decoders
        );
        assert_eq!(tally.failures, 0, "{} of {}", board.name, profile);
        assert!(tally.reconstructions > 0);
    }
}

#[test]
fn every_reading_of_256_bytes_gives_the_key_back() {
    every_reading_of_every_window(Profile::Dk256);
}

#[test]
fn every_reading_of_512_bytes_gives_the_key_back() {
    every_reading_of_every_window(Profile::Dk512);
}

#[test]
fn every_reading_of_1_kib_gives_the_key_back() {
    every_reading_of_every_window(Profile::Dk1024);
}

#[test]
fn every_reading_of_2_kib_gives_the_key_back() {
    every_reading_of_every_window(Profile::Dk2048);
}

/// Other boards' readings of the window, and other windows of the board's own readings, the enrolled
/// one's among them. Fails with `true` for `confirms`, without the limit of distance.
#[test]
fn no_other_chip_and_no_other_window_is_accepted() {
    for profile in [Profile::Dk256, Profile::Dk1024] {
        let refused = AtomicUsize::new(0);
        for board in boards() {
            let every = step(1024 / profile.response_len());
            in_parallel(board.windows(profile) / every, |job| {
                let at = job * every;
                let (helper, _) = enrolled(board, profile, at);
                let strangers = boards().iter().filter(|other| other.name != board.name);
                let strangers = strangers
                    .filter(|other| at < other.windows(profile))
                    .map(|other| window(profile, &other.readings[0], at));
                let next = (at + 1) % board.windows(profile);
                let own = window(profile, &board.readings[0], next);
                for reading in strangers.chain([own]) {
                    let found = reconstruct(&helper, &reading);
                    assert!(
                        matches!(found, Err(Error::NotReproduced)),
                        "{} {at}",
                        board.name
                    );
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let refused = refused.into_inner();
        println!("{profile}: {refused} readings of other chips and windows, 0 accepted");
        assert!(refused > 0 || boards().is_empty());
    }
}

/// Every bit, with all decoders. Fails without the tag.
#[test]
fn a_changed_bit_of_the_helper_data_is_refused() {
    let Some(board) = boards().first() else {
        return;
    };
    let profile = Profile::Dk256;
    let (helper, _) = enrolled(board, profile, 0);
    let good = helper.encode();
    let reading = window(profile, &board.readings[1], 0);
    assert!(reconstruct(&helper, &reading).is_ok());
    in_parallel(good.len() * 8, |bit| {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let found = Helper::parse(&bad).and_then(|helper| reconstruct(&helper, &reading));
        assert!(matches!(found, Err(Error::NotReproduced)), "bit {bit}");
    });
    println!("{} bits of helper data changed, 0 accepted", good.len() * 8);
}

/// Half of board F's words start with 38 % ones and half with 62 %, 50 % in all: the ledger sees 300
/// bits of loss and more per KiB, and K grows; for the other boards it does not. Fails without the
/// models by word parity.
#[test]
fn the_structured_chip_is_recognised() {
    let profile = Profile::Dk1024;
    for board in boards() {
        let windows = board.windows(profile);
        let mut found: Vec<(usize, usize)> = Vec::new();
        for at in 0..windows {
            let report = measure(&[window(profile, &board.readings[0], at)]);
            assert!((0.46..0.54).contains(&report.ones), "{}", report.ones);
            let fit = report
                .fits
                .iter()
                .find(|fit| fit.profile == profile)
                .unwrap();
            assert_eq!(fit.refusals, [""; 0]);
            found.push((fit.loss, fit.k.unwrap()));
        }
        found.sort_unstable();
        let mean = found.iter().map(|(loss, _)| loss).sum::<usize>() / windows;
        let ((least, _), (most, k)) = (found[0], found[windows - 1]);
        println!(
            "{}: loss at 1 KiB {least} to {most} bits, mean {mean}, K up to {k}",
            board.name
        );
        match board.name.as_str() {
            "stm_F" => {
                assert!(mean >= 300 && most >= 450, "{mean} {most}");
                let long = found.iter().filter(|(_, k)| *k >= 704).count();
                assert!(long * 10 > windows * 8, "{long} of {windows}");
                assert!(found.iter().all(|(loss, k)| *loss < 300 || *k >= 704));
            }
            "stm_A" | "scum_L45" => assert!(most < 50 && k == 512, "{most} {k}"),
            _ => {}
        }
    }
}

/// Fails where refresh makes its syndrome of the reading.
#[test]
fn a_refresh_gives_the_same_syndrome() {
    let profile = Profile::Dk1024;
    for board in boards() {
        for at in [0, board.windows(profile) - 1] {
            let (before, root) = enrolled(board, profile, at);
            let reading = window(profile, &board.readings[2], at);
            let after = refresh(&before, &reading).unwrap();
            assert_eq!(after.helper.syndrome_id(), before.syndrome_id());
            assert_ne!(after.helper.id(), before.id());
            assert_ne!(after.root.expose(), root.expose());
            let last = window(profile, board.readings.last().unwrap(), at);
            let again = reconstruct(&after.helper, &last).unwrap();
            assert_eq!(again.root.expose(), after.root.expose());
        }
    }
}

/// Five readings enrol together with a reliability map, and the others give the root back with
/// fewer flips than after one reading. Fails with the first reading for the majority.
#[test]
fn several_readings_make_a_better_enrolment() {
    let profile = Profile::Dk256;
    for board in boards() {
        let flips = Mutex::new((0, 0));
        let every = step(16);
        in_parallel(board.windows(profile) / every, |job| {
            let at = job * every;
            let (one, _) = enrolled(board, profile, at);
            let five: Vec<Secret> = board.readings[..5]
                .iter()
                .map(|reading| window(profile, reading, at))
                .collect();
            let five = enroll_with_map(profile, &five, &source(profile, at)).unwrap();
            for reading in board.readings[5..].iter().chain(&board.others) {
                let reading = window(profile, reading, at);
                let found = reconstruct(&five.helper, &reading).unwrap();
                assert_eq!(found.root.expose(), five.root.expose());
                let alone = reconstruct(&one, &reading).unwrap();
                let mut flips = flips.lock().unwrap();
                flips.0 += alone.flips;
                flips.1 += found.flips;
            }
        });
        let (alone, together) = flips.into_inner().unwrap();
        println!(
            "{}: {alone} flips after one reading, {together} after five",
            board.name
        );
        assert!(together * 10 < alone * 9, "{alone} {together}");
    }
}
