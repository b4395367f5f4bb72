//! `kimberlite validate`: everything that can be known without running, and every fault of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::alone::loader;
use super::table::size;
use super::{Ended, Session, complain, print};
use crate::catalog::Owners;
use crate::clock::RealClock;
use crate::config::Config;
use crate::loader::machine_stats;
use crate::reload::{Change, News, Survey};
use crate::settling::Unsettled;

pub(super) fn validate(session: &Session) -> Result<(), Ended> {
    let config = match session.source().load_trusted() {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults.to_string());
            return Err(Ended::Found);
        }
    };
    let stats = machine_stats(&config.agent);
    let mut loader = loader(session, &config, Arc::new(RealClock::new()), stats)?;
    loader.checks_owner = true;
    let mut found = 0;
    let fault = |text: &str| {
        complain(&session.secrets.scrub(text));
        text.matches("error: ").count().max(1)
    };
    // What an agent would find that starts now.
    let survey = Survey {
        loader,
        source: session.source(),
        config: config.clone(),
        known: BTreeMap::new(),
        refused: BTreeSet::new(),
        owners: Owners::new(),
        unsettled: Unsettled::default(),
        reads_config: false,
        is_start: true,
    };
    survey.run(|news| match news {
        News::Change(name, change) => match *change {
            Change::Start(table, prepared) => {
                let (kind, manifest) = (table.kind(), &prepared.plugin.manifest);
                print(&format!(
                    "ok: {kind} `{name}` ({} {}, {})\n",
                    manifest.name, manifest.version, prepared.origin
                ));
                if let Some(unasked) = prepared.unasked {
                    print(&format!("    it never asks for some of what is granted: `{unasked}`\n"));
                }
            }
            Change::Park(_, why) => found += fault(&why),
            _ => {}
        },
        News::Files { idle, .. } => {
            for (path, why) in idle {
                found += fault(&format!("plugin `{}` {why}", path.display()));
            }
        }
        _ => {}
    });
    found += budget(&config);
    if found == 0 {
        return Ok(());
    }
    complain(&format!("{found} fault{} found", if found == 1 { "" } else { "s" }));
    Err(Ended::Found)
}

/// What all bounds together allow, against what the machine has. Gives how many faults that is.
fn budget(config: &Config) -> usize {
    let limits = config
        .collectors
        .values()
        .map(|table| &table.plugin)
        .chain(config.handlers.values().map(|table| &table.plugin));
    let instances: u64 = limits
        .filter(|table| table.enabled)
        .map(|table| (table.limits.memory + table.limits.host_memory + table.limits.state) as u64)
        .sum();
    let queues: u64 = config.handlers.values().map(|table| table.queue.memory).sum();
    let total = instances + queues;
    print(&format!("budget: plugins at most {}, queues at most {}", size(instances), size(queues)));
    let memory = std::fs::read_to_string(config.agent.proc.join("meminfo")).ok().and_then(|text| {
        text.lines().next()?.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    let Some(memory) = memory else {
        print("; this machine's memory is not known\n");
        return 0;
    };
    print(&format!(", of {} in this machine\n", size(memory)));
    if total <= memory {
        return 0;
    }
    complain(&format!(
        "all bounds together allow {}, this machine has {}\n  hint: lower `limits.memory` or `queue.memory`",
        size(total),
        size(memory)
    ));
    1
}
