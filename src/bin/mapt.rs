//! `mapt`: the operator's tool.
use clap::{Parser, Subcommand};
use mapt::io::{client, push, show};
use mapt::lab;
use mapt::ops::{cli, translate};
use std::io::{self, Write};
use std::process::ExitCode;

/// The operator's tool of MAP-T (RFC 7599): checks rules, answers who has which address and port
///
/// Exit status: 0 yes or done, 1 no or invalid (with a reason on stderr), 2 wrong usage.
#[derive(Parser)]
#[command(name = "mapt", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Ops(cli::Command),
    /// Run packets through the engine of a BR or CE: hex lines on stdin, or a capture
    Translate(translate::TranslateArgs),
    /// Ask a running daemon
    Show(show::ShowArgs),
    /// Put a rule set in force on running daemons, on all or on none
    Push(push::PushArgs),
    /// Join stdin and stdout to a control socket: what `ssh://` targets run on the other machine
    #[command(hide = true)]
    Relay(client::RelayArgs),
    /// Build a MAP-T network in namespaces of this machine, use it, and print what passed
    Lab(lab::LabArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Ops(command) => print(command.run()),
        Command::Show(args) => show::show(&args),
        Command::Push(args) => push::push(&args),
        Command::Relay(args) => client::relay(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Translate(args) => {
            let output = &mut io::BufWriter::new(io::stdout().lock());
            ExitCode::from(translate::main(&args, &mut io::stdin().lock(), output, &mut io::stderr()))
        }
    }
}

/// A reader that went away, such as `head`, is no failure of ours.
fn print(output: cli::Output) -> ExitCode {
    let _ = io::stderr().write_all(output.stderr.as_bytes());
    match io::stdout().write_all(output.stdout.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "mapt: cannot write the answer: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(output.status),
    }
}
