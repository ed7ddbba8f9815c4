//! `cargo xtask`: the one place that knows how to go from a fresh Debian 12 with Rust to a checked tree or a running
//! box. Each subcommand does its own set-up; nothing else has to be typed first.
//!
//! It refuses to guess: a step that fails stops the run with the command that repeats it.
//!
//! - Nothing is written outside the target directory, except packages and toolchain components that were missing.
//! - Every process it starts dies with it, however it dies (see [`xtask::child`]).

mod checks;
mod deb;
mod deb_check;
mod demo;
mod fleet_demo;
mod fuzz;
mod image;
mod image_console;
mod image_enrol;
mod image_install;
mod image_test;
mod image_update;
mod machine;
mod outage_demo;
mod setup;
mod site_demo;
mod story;
mod suites;
mod tests;
mod vga;
mod workspace;

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

fn command_line() -> Command {
    let no_setup = Arg::new("no-setup")
        .long("no-setup")
        .action(ArgAction::SetTrue)
        .global(true)
        .help("Use what is installed, install nothing");
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("Bulla's set-up, checks and demo")
        .subcommand_required(true)
        .arg(no_setup)
        .subcommand(
            Command::new("setup").about("Install what the other commands need: packages, rustup components"),
        )
        .subcommand(Command::new("test").about("Everything CI runs: format, lints, docs, licences, tests"))
        .subcommand(Command::new("demo").about(
            "Seal, verify and try to forge real documents on a box with a TPM; found a fleet and enrol boxes",
        ))
        .subcommand(
            Command::new("bench")
                .about("Measure the release build; ratios against baselines of the same run")
                .arg(
                    Arg::new("arguments")
                        .num_args(0..)
                        .last(true)
                        .help("For the benchmark, after `--`: --sizes 10k,1m,10m, --outage 1m, --hub 1m, --only PARTS, --plot FILE"),
                ),
        )
        .subcommand(Command::new("deb").about("Build the Debian packages of bulla and bulla-box").arg(
            Arg::new("check").long("check").action(ArgAction::SetTrue).help(
                "And install, start, injure and purge them in a clean Debian that boots systemd (root)",
            ),
        ))
        .subcommand(
            Command::new("image")
                .about("Build the operating system's image: Debian 13, signed kernel image, verified root (root)")
                .arg(version())
                .arg(
                    Arg::new("floor")
                        .long("floor")
                        .value_name("VERSION")
                        .default_value("0.0.0")
                        .help("The oldest version that still starts on a box once this one has proven itself there"),
                )
                .arg(
                    Arg::new("keys")
                        .long("keys")
                        .value_name("DIRECTORY")
                        .value_parser(clap::value_parser!(std::path::PathBuf))
                        .help("Sign with db.key, db.crt, pcr.key, pcr.pub, update.key, update.pub of this directory, not with keys for development"),
                ),
        )
        .subcommand(
            Command::new("image-test")
                .about("Boot the image with Secure Boot and a TPM; seal, reboot, pull the plug, tamper, install, update (root)")
                .arg(version())
                .arg(
                    Arg::new("only-update")
                        .long("only-update")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("only-console")
                        .help("Only the story of the updates"),
                )
                .arg(
                    Arg::new("only-console")
                        .long("only-console")
                        .action(ArgAction::SetTrue)
                        .help("Only the story of the console: the screen and the keyboard of a machine"),
                )
                .arg(
                    Arg::new("only-install")
                        .long("only-install")
                        .action(ArgAction::SetTrue)
                        .conflicts_with_all(["only-update", "only-console"])
                        .help("Only the story of the stick that installs"),
                ),
        )
        .subcommand(
            Command::new("fuzz")
                .about("Fuzz the parsers of foreign bytes, and keep what was learnt")
                .arg(
                    Arg::new("target")
                        .long("target")
                        .value_name("TARGET")
                        .help("Only this one; they are in tests/fuzz/src/targets"),
                )
                .arg(number("seconds", "60", "How long each target runs"))
                .arg(number("jobs", "2", "How many targets run at a time")),
        )
        .subcommand(
            Command::new("soak")
                .about("The fault tests of `test` at full length, then every fuzz target for an hour")
                .arg(number("seconds", "3600", "How long each fuzz target runs")),
        )
}

fn version() -> Arg {
    Arg::new("version")
        .long("version")
        .value_name("VERSION")
        .default_value(env!("CARGO_PKG_VERSION"))
        .help("The image's version; the newest one on a disk is booted")
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let reads = clap::value_parser!(u64).range(1..=1_000_000);
    Arg::new(name).long(name).value_name("NUMBER").value_parser(reads).default_value(default).help(help)
}

/// An argument that has a default.
fn text(arguments: &clap::ArgMatches, subcommand: &str, name: &str) -> String {
    let given = arguments.subcommand_matches(subcommand).and_then(|given| given.get_one::<String>(name));
    given.cloned().unwrap_or_default()
}

fn main() -> ExitCode {
    let arguments = command_line().get_matches();
    let outcome = workspace::Workspace::find().and_then(|workspace| {
        let prepare = |purpose| match arguments.get_flag("no-setup") {
            true => Ok(()),
            false => setup::prepare(&workspace, purpose),
        };
        let check_packages = arguments.subcommand_matches("deb").is_some_and(|deb| deb.get_flag("check"));
        match arguments.subcommand_name() {
            Some("setup") => setup::prepare(&workspace, setup::Purpose::Test).map(|()| ExitCode::SUCCESS),
            Some("test") => prepare(setup::Purpose::Test).and_then(|()| checks::run(&workspace)),
            Some("demo") => {
                prepare(setup::Purpose::Demo).and_then(|()| demo::run(&workspace)).map(|()| ExitCode::SUCCESS)
            }
            Some("bench") => {
                let given =
                    arguments.subcommand_matches("bench").and_then(|bench| bench.get_many("arguments"));
                let given: Vec<String> = given.into_iter().flatten().cloned().collect();
                prepare(setup::Purpose::Bench).and_then(|()| checks::bench(&workspace, &given))
            }
            Some("deb") if check_packages => prepare(setup::Purpose::PackageCheck)
                .and_then(|()| deb_check::run(&workspace))
                .map(|()| ExitCode::SUCCESS),
            Some("deb") => {
                prepare(setup::Purpose::Demo).and_then(|()| deb::build(&workspace)).map(|_| ExitCode::SUCCESS)
            }
            Some("image") => {
                let options = image::Options {
                    version: text(&arguments, "image", "version"),
                    floor: text(&arguments, "image", "floor"),
                    keys: arguments
                        .subcommand_matches("image")
                        .and_then(|image| image.get_one("keys").cloned()),
                };
                prepare(setup::Purpose::Image)
                    .and_then(|()| image::build(&workspace, &options))
                    .map(|_| ExitCode::SUCCESS)
            }
            Some("image-test") => prepare(setup::Purpose::Image)
                .and_then(|()| {
                    let given = |flag: &str| {
                        arguments.subcommand_matches("image-test").is_some_and(|test| test.get_flag(flag))
                    };
                    let parts = [
                        ("only-update", image_test::Part::Update),
                        ("only-console", image_test::Part::Console),
                        ("only-install", image_test::Part::Install),
                    ];
                    let part = parts.into_iter().find(|(flag, _)| given(flag));
                    let part = part.map_or(image_test::Part::Whole, |(_, part)| part);
                    image_test::run(&workspace, &text(&arguments, "image-test", "version"), part)
                })
                .map(|()| ExitCode::SUCCESS),
            Some("fuzz") => {
                let given = arguments.subcommand_matches("fuzz");
                let target = given.and_then(|given| given.get_one::<String>("target")).cloned();
                let number = |name: &str| given.and_then(|given| given.get_one::<u64>(name)).copied();
                let (seconds, jobs) = (number("seconds").unwrap_or(60), number("jobs").unwrap_or(2));
                let plan =
                    fuzz::Plan { target, seconds, jobs: jobs as usize, counters: fuzz::Counters::Everywhere };
                prepare(setup::Purpose::Fuzz).and_then(|()| checks::fuzz(&workspace, &plan))
            }
            Some("soak") => {
                let given = arguments.subcommand_matches("soak");
                let seconds = given.and_then(|given| given.get_one::<u64>("seconds")).copied();
                prepare(setup::Purpose::Test).and_then(|()| checks::soak(&workspace, seconds.unwrap_or(3600)))
            }
            // clap has refused every other name already; this is its list and ours drifting apart.
            other => Err(anyhow::anyhow!("the subcommand {other:?} is declared but not connected")),
        }
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
