//! `kimberlite list`: every plugin of the running agent, or what would be loaded.

use super::table::{size, table};
use super::{Ended, Session, print};
use crate::admin::{Client, ClientError};
use crate::catalog::{Candidate, Catalog, Owners, Verdict};
use crate::component_file::FileRules;
use crate::config::Config;
use crate::config::manifest::PluginKind;
use crate::config::{PluginConfig, PluginSource};
use crate::settling::Unsettled;
use crate::status::{PluginStatus, Refused, Retrying, Snapshot};

pub(super) fn list(session: &Session) -> Result<(), Ended> {
    let snapshot = match Client::connect(&session.agent_dir()?).and_then(|agent| agent.plugins()) {
        Ok(snapshot) => snapshot,
        Err(ClientError::NotRunning(_)) => would_be_loaded(&session.config()?),
        Err(error) => return Err(error.into()),
    };
    if session.is_json() {
        let json = serde_json::to_string(&snapshot).map_err(|error| Ended::Software(error.to_string()))?;
        print(&format!("{json}\n"));
        return Ok(());
    }
    print(&as_text(&snapshot));
    Ok(())
}

fn as_text(snapshot: &Snapshot) -> String {
    let mut out = if snapshot.agent.pid > 0 {
        let agent = &snapshot.agent;
        format!(
            "kimberlite {} on {}, process {}, {} resident\n\n",
            agent.version,
            agent.name,
            agent.pid,
            size(agent.rss)
        )
    } else {
        "no agent runs; with this config it would load:\n\n".to_owned()
    };
    if let Some(fault) = &snapshot.agent.config_error {
        out = format!("{out}the config has a fault; the one before it is in force:\n{}\n\n", indented(fault));
    }
    let rows: Vec<Vec<String>> = snapshot.plugins.iter().map(row).collect();
    out += &table(
        &[
            "NAME", "KIND", "STATE", "VERSION", "ORIGIN", "MEMORY", "PEAK", "LIMIT", "LAST RUN", "SAMPLES",
            "FAILURES", "KILLS",
        ],
        &rows,
    );
    for plugin in &snapshot.plugins {
        if let Some(Refused { origin, version, sha256, reason }) = &plugin.refused {
            let code = format!("{version} {}", sha256.get(..8).unwrap_or_default());
            let words: Vec<&str> =
                [origin.as_str(), code.trim()].into_iter().filter(|word| !word.is_empty()).collect();
            out += &format!(
                "\n{} runs on, {} was refused:\n{}\n",
                plugin.name,
                words.join(" "),
                indented(reason)
            );
        }
        if !plugin.waits_for.is_empty() {
            out += &format!("\n{} waits for:\n{}\n", plugin.name, indented(&plugin.waits_for));
        }
        if let Some(halted) = plugin.delivery.as_ref().and_then(|delivery| delivery.halted.as_ref()) {
            out += &format!("\n{} is halted: {halted}\n", plugin.name);
        }
        let retrying = plugin.delivery.as_ref().and_then(|delivery| delivery.retrying.as_ref());
        if let Some(Retrying { attempts, next, reason }) = retrying {
            out += &format!(
                "\n{} has failed {attempts} times in a row, tries again at {}; in memory {}, on disk {}: {reason}\n",
                plugin.name,
                time(*next),
                size(plugin.queue_bytes),
                size(plugin.spool_bytes),
            );
        } else if let Some(failure) = &plugin.last_failure {
            out += &format!(
                "\n{} last failed {}: {}: {}\n",
                plugin.name,
                time(failure.at),
                failure.reason,
                failure.text
            );
        }
    }
    out
}

fn row(plugin: &PluginStatus) -> Vec<String> {
    let kills: Vec<String> = plugin.kills.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let recycled = (plugin.recycles > 0).then(|| format!("recycled {}", plugin.recycles));
    vec![
        plugin.name.clone(),
        plugin.kind.to_string(),
        plugin.state.to_string(),
        plugin.version.clone(),
        match plugin.sha256.get(..8) {
            Some(hash) => format!("{} {hash}", plugin.origin),
            None => plugin.origin.clone(),
        },
        size(plugin.memory_now),
        size(plugin.memory_peak),
        size(plugin.memory_limit),
        plugin.last_run.map_or_else(|| "-".to_owned(), time),
        match &plugin.delivery {
            Some(delivery) => format!("{} of {}", delivery.delivered, plugin.samples_total),
            None => plugin.samples_total.to_string(),
        },
        plugin.failures.to_string(),
        match kills.into_iter().chain(recycled).collect::<Vec<_>>() {
            none if none.is_empty() => "-".to_owned(),
            some => some.join(", "),
        },
    ]
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// `2026-11-22T22:08:00Z`
pub(super) fn time(millis: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The config's tables, without anything that only running shows.
fn would_be_loaded(config: &Config) -> Snapshot {
    let planned = |name: &String, kind: PluginKind, table: &PluginConfig| PluginStatus {
        name: name.clone(),
        kind,
        state: if table.enabled { "would run".into() } else { "disabled".into() },
        origin: match &table.source {
            PluginSource::File(path) => path.display().to_string(),
            PluginSource::Named(name) if crate::bundled::find(name).is_some() => "bundled".to_owned(),
            PluginSource::Named(name) => name.clone(),
        },
        memory_limit: table.limits.memory as u64,
        ..PluginStatus::default()
    };
    let collectors =
        config.collectors.iter().map(|(name, table)| planned(name, PluginKind::Collector, &table.plugin));
    let handlers =
        config.handlers.iter().map(|(name, table)| planned(name, PluginKind::Handler, &table.plugin));
    let mut plugins: Vec<PluginStatus> = collectors.chain(handlers).collect();
    let rules = FileRules::new(&config.agent, true);
    let catalog = Catalog::scan(
        &config.agent.plugin_dirs,
        &rules,
        config.agent.follow_links,
        &Owners::new(),
        &Unsettled::default(),
    );
    for Candidate { path, found } in catalog.candidates {
        let origin = path.display().to_string();
        let (name, state, waits_for) = match found {
            Verdict::Whole { name, .. } if plugins.iter().any(|plugin| plugin.name == name) => continue,
            Verdict::Whole { name, .. } => (name, "would run", String::new()),
            Verdict::Refused(why) => (origin.clone(), "would not run", format!("plugin `{origin}` {why}")),
            Verdict::Unsettled => continue,
        };
        plugins.push(PluginStatus {
            name,
            state: state.into(),
            origin,
            waits_for,
            ..PluginStatus::default()
        });
    }
    Snapshot { plugins, ..Snapshot::default() }
}
