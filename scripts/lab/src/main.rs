//! `jumpgate-lab`: the namespace laboratory's command line.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use jumpgate_lab::topology::Lab;
use jumpgate_lab::{demo, e2e, relay, run};

#[derive(Parser)]
#[command(version, about = "A namespace laboratory for Jumpgate: demo and end-to-end tests")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Download over one TCP connection while the session jumps five times, and prove that nothing was reset
    Demo {
        /// IPv6 between client and gateway
        #[arg(long)]
        ipv6: bool,
        /// Size of the download
        #[arg(long, default_value_t = 200)]
        megabytes: u64,
    },
    /// Run the end-to-end tests whose name contains FILTER
    E2e {
        /// Part of a test's name
        #[arg(default_value = "")]
        filter: String,
    },
    /// Build the lab, print its namespaces, and keep it until Ctrl-C
    Up,
    /// Remove namespaces, processes and files that dead runs left behind
    Clean,
    /// Forward frames between TAP devices, impairing them (the lab starts this itself)
    #[command(hide = true)]
    Relay {
        /// Unix socket on which it takes requests
        #[arg(long)]
        control: PathBuf,
        /// Seed of all its dice
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A path: name=namespace:device,namespace:device,queue
        #[arg(long = "link", required = true)]
        links: Vec<relay::Link>,
    },
}

fn main() -> ExitCode {
    let result = execute(Arguments::parse().task);
    run::stand_aside_for_signal();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("jumpgate-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the task came to a good end.
fn execute(task: Task) -> Result<bool> {
    match task {
        Task::Demo { ipv6, megabytes } => demo::run(demo::Options { ipv6, megabytes }),
        Task::E2e { filter } => e2e::run(&filter),
        Task::Up => up(),
        Task::Clean => {
            run::clean().iter().for_each(|what| println!("removed {what}"));
            Ok(true)
        }
        Task::Relay { control, seed, links } => relay::run(&control, seed, &links).map(|()| true),
    }
}

fn up() -> Result<bool> {
    let lab = Lab::build(1)?;
    for namespace in [&lab.client, &lab.core, &lab.gateway, &lab.server] {
        println!("ip netns exec {} bash", namespace.name());
    }
    let socket = lab.run.directory().join("relay.sock");
    println!("relay, for instance:");
    println!(
        r#"  echo '{{"do":"set","path":"lte","profile":{{"loss":0.1,"delay_ms":40}}}}' | nc -U {}"#,
        socket.display()
    );
    println!(r#"  echo '{{"do":"rebind","path":"wifi"}}' | nc -U {}"#, socket.display());
    println!("Ctrl-C takes it down");
    loop {
        std::thread::park();
    }
}
