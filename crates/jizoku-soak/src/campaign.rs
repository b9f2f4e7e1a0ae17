//! One step after the other: faults, healing, quiet, judgement.
//!
//! Invariant: a step begins only when all is well, so whatever is seen belongs to it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use jizoku_e2e::clients;
use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;

use crate::check::{Disturbance, Excuses, Moment, Promise, Violation, may_break};
use crate::clients::Service;
use crate::inject::{self, Made};
use crate::machines::{Look, Machines};
use crate::plan::{Draw, KINDS, Kind, Step};
use crate::report::Report;
use crate::web::{PAGE, Web};

/// All answer again so soon after a fault is healed.
pub const BACK_WITHIN: Duration = Duration::from_secs(60);
/// And so soon after all machines lost their power: services wait for their last holders.
const BACK_AFTER_POWER_LOSS: Duration = Duration::from_secs(90);
/// All is held again so soon: copies have to be made, and modules compiled.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a fault's target is looked for while a takeover is under way.
const TARGET_WITHIN: Duration = Duration::from_secs(3);
/// After so long an agent that ended is started again: as in dist/jizoku.service.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Lines of the timeline that are printed with the first violation of a step.
const LINES_SHOWN: usize = 400;
/// The kernel's signal for who has no memory left.
const SIGKILL: i32 = 9;
/// The port of the service of the engine `exec`.
const WEB_PORT: u16 = 8000;

/// What a campaign is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// What steps are drawn from.
    pub draw: Draw,
    /// The first step.
    pub from: u64,
    /// It ends after so many steps.
    pub steps: u64,
    /// It ends after so long, at the end of a step.
    pub limit: Duration,
    /// Calm before each step.
    pub calm: Duration,
    /// Nodes.
    pub nodes: usize,
    /// Writers for each gateway and service.
    pub writers: usize,
}

/// See the module's header.
#[derive(Debug)]
pub struct Campaign {
    /// The nodes.
    pub machines: Machines,
    /// The services that are counted in, each with its clients.
    pub services: Vec<Service>,
    /// What it came to so far.
    pub report: Report,
    options: Options,
    web: Option<Web>,
    began: Instant,
    excuses: Excuses,
    epochs: BTreeMap<&'static str, u64>,
    shown: bool,
}

const HELD: [&str; 3] = ["memory", "disk", "free"];

impl Campaign {
    /// Nodes, services, and clients that were all answered.
    pub fn start(cluster: Cluster, apart: bool, options: Options) -> Campaign {
        let began = Instant::now();
        let mut machines = Machines::start(cluster, apart, options.nodes, options.draw.seed);
        let mut services = Vec::new();
        let kinds = [
            ("memory", 7000, Promise::Memory, "output = \"held\""),
            ("disk", 7001, Promise::Disk, "output = \"held\"\ndurable = \"disk\""),
            ("free", 7002, Promise::Free, "output = \"free\""),
        ];
        for (name, port, promise, state) in kinds {
            machines.cluster.must_apply(&cluster::kv_called(name, port, "64MiB", state));
            services.push(Service::new(name, port, promise, began));
        }
        let nodes: Vec<usize> = (0..machines.count).collect();
        for service in &mut services {
            machines.cluster.wait_until_open(service.port);
            machines.cluster.wait_until_held(service.name, 2);
            let gateways = nodes.iter().map(|node| machines.cluster.address(*node, service.port));
            service.start(&gateways.collect::<Vec<_>>(), options.writers);
        }
        let web = start_web(&mut machines, began);
        let mut campaign = Campaign {
            machines,
            services,
            report: Report::default(),
            options,
            web,
            began,
            excuses: Excuses::default(),
            epochs: BTreeMap::new(),
            shown: false,
        };
        campaign.drop_impossible();
        campaign.epochs = campaign.epochs_now().expect("a cluster that has just begun");
        campaign
    }

    fn drop_impossible(&mut self) {
        let (can, cannot): (Vec<Kind>, Vec<Kind>) =
            self.options.draw.kinds.iter().partition(|kind| self.machines.can(kind.need()));
        for kind in cannot {
            let why = format!("{}: it needs {:?}", kind.name(), kind.need()).to_lowercase();
            self.report.impossible.push(why);
        }
        self.options.draw.kinds = can;
    }

    /// Runs all steps. Gives what they came to.
    pub fn run(mut self) -> Report {
        for number in self.options.from..self.options.from + self.options.steps {
            if self.began.elapsed() > self.options.limit {
                break;
            }
            let step = self.options.draw.step(number);
            if let Err(what) = self.run_step(&step) {
                self.violation(&step, Violation::Other(what));
                println!("it can't go on from here");
                break;
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Report {
        let last = self.options.draw.step(self.options.from);
        self.services.iter_mut().for_each(Service::end);
        if let Some(mut web) = self.web.take() {
            web.end();
        }
        self.excuses = Excuses { began: self.now(), ..Excuses::default() };
        if self.report.violations.is_empty() {
            let keys = self.services.iter().map(|one| one.seen().book.keys()).collect();
            self.settle_keys(&last, keys);
        }
        self.machines.end();
        self.report.took = self.began.elapsed();
        self.report.load = load();
        self.report
    }

    /// Time since the campaign began.
    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn run_step(&mut self, step: &Step) -> Result<(), String> {
        std::thread::sleep(self.options.calm);
        self.shown = false;
        let answers: u64 = self.services.iter().map(|one| one.seen().answers).sum();
        self.judge_calm(step);
        self.services.iter().for_each(Service::mark);
        self.excuses = Excuses { began: self.now(), ..Excuses::default() };
        let first = step.faults[0].kind;
        let said = match first {
            Kind::Rolling => self.rolling()?,
            Kind::PowerLoss => self.power_loss()?,
            _ => self.faults(step)?,
        };
        let healed = self.now();
        let Some(said) = said else {
            self.row(first).skipped += 1;
            return Ok(());
        };
        let back = self.wait_until_back(step, healed)?;
        self.wait_until_whole(step, healed)?;
        let takeovers = self.judge(step, answers)?;
        let row = self.report.rows.entry(first.name()).or_default();
        row.back.push(back);
        println!(
            "{:>7.1} s  step {:<4} {:<60} outage {:>6.2} s, back {:>5.2} s, {} takeovers, load {}",
            self.began.elapsed().as_secs_f64(),
            step.number,
            said,
            row.outages.last().copied().unwrap_or_default().as_secs_f64(),
            back.as_secs_f64(),
            takeovers,
            load()
        );
        Ok(())
    }

    fn row(&mut self, kind: Kind) -> &mut crate::report::Row {
        self.report.rows.entry(kind.name()).or_default()
    }

    /// Nodes to which nothing is being done.
    fn free(&self) -> Vec<usize> {
        let busy = |node: &usize| {
            let mut all = self.excuses.disturbed.iter();
            all.any(|what| what.node == *node && what.until.is_none())
        };
        (0..self.machines.count).filter(|node| !busy(node)).collect()
    }

    /// One fault, or two. None: none could be made.
    fn faults(&mut self, step: &Step) -> Result<Option<String>, String> {
        let mut made: Vec<(Instant, Made)> = Vec::new();
        let mut said = Vec::new();
        for (number, fault) in step.faults.iter().enumerate() {
            if number > 0 {
                std::thread::sleep(step.between);
            }
            let service = &self.services[fault.service % self.services.len()];
            let service = (service.name, service.port);
            let from = self.now();
            let tried = Instant::now();
            let one = loop {
                let free = self.free();
                let one = self.machines.look(free.clone()).ok_or("nobody answers".into());
                let one = one.and_then(|look| {
                    inject::make(&mut self.machines, &look, fault, service, &free)
                });
                match one {
                    Err(_) if tried.elapsed() < TARGET_WITHIN => std::thread::sleep(LOOK_EVERY),
                    one => break one,
                }
            };
            match one {
                Ok(one) => {
                    self.row(fault.kind).injected += 1;
                    self.disturbed(&one.nodes, from, one.died);
                    said.push(one.what.clone());
                    made.push((Instant::now() + fault.span, one));
                }
                Err(why) => {
                    println!("           step {}: {}: {why}", step.number, fault.kind.name());
                    self.row(fault.kind).skipped += 1;
                }
            }
        }
        if made.len() > 1 {
            self.row(made[0].1.kind).double += 1;
        }
        made.sort_by_key(|one| one.0);
        let spans = step.faults.iter().map(|one| format!("{:.1} s", one.span.as_secs_f64()));
        let spans = spans.collect::<Vec<_>>().join(", ");
        for (until, one) in made {
            while Instant::now() < until {
                self.supervise(step);
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(LOOK_EVERY));
            }
            let nodes = one.nodes.clone();
            // Its agent may have ended meanwhile.
            self.supervise(step);
            one.heal(&mut self.machines)?;
            self.healed(&nodes);
        }
        Ok((!said.is_empty()).then(|| format!("{} ({spans})", said.join(", "))))
    }

    fn disturbed(&mut self, nodes: &[usize], from: Moment, died: bool) {
        for node in nodes {
            let what = Disturbance { node: *node, from, until: None, died };
            self.excuses.disturbed.push(what);
            if died {
                self.services.iter().for_each(|service| service.hang_up(*node));
            }
        }
    }

    fn healed(&mut self, nodes: &[usize]) {
        let now = self.now();
        for what in &mut self.excuses.disturbed {
            if nodes.contains(&what.node) && what.until.is_none() {
                what.until = Some(now);
            }
        }
    }

    /// Starts agents again that have ended by themselves, as systemd would.
    fn supervise(&mut self, step: &Step) {
        for node in 0..self.machines.count {
            let Some(status) = self.machines.cluster.ended(node) else { continue };
            // An agent that can't note its new incarnation, for want of room, doesn't start. What
            // ended before its fault was healed may be seen a little later.
            let killed = self.excuses.disturbed.iter().any(|what| what.node == node && what.died);
            let starved = step.faults.iter().any(|fault| match fault.kind {
                Kind::Memory => status.signal() == Some(SIGKILL),
                Kind::DiskFull => killed,
                _ => false,
            });
            if !starved {
                let what = format!("the agent of n{} ended by itself: {status}", node + 1);
                self.violation(step, Violation::Other(what));
            }
            let from = self.excuses.began;
            self.disturbed(&[node], from, true);
            std::thread::sleep(RESTART_AFTER);
            self.machines.begin(node);
        }
    }

    fn rolling(&mut self) -> Result<Option<String>, String> {
        let row = self.row(Kind::Rolling);
        row.injected += 1;
        let step = Step { number: 0, faults: Vec::new(), between: Duration::ZERO };
        for node in 0..self.machines.count {
            let from = self.now();
            let ended = self.machines.cluster.terminate(node);
            self.disturbed(&[node], from, true);
            if !ended {
                return Err(format!("n{} doesn't end well", node + 1));
            }
            self.machines.begin(node);
            self.healed(&[node]);
            self.wait_until_whole(&step, from)?;
        }
        Ok(Some("rolling restart".into()))
    }

    fn power_loss(&mut self) -> Result<Option<String>, String> {
        self.row(Kind::PowerLoss).injected += 1;
        let all: Vec<usize> = (0..self.machines.count).collect();
        let mut flush = Duration::ZERO;
        for disk in &self.machines.disks {
            let took = disk.flush_takes().map_err(|error| format!("no flush: {error}"))?;
            flush = flush.max(took);
        }
        self.excuses.flush = flush;
        let from = self.now();
        self.machines.cluster.kill_all();
        for disk in &self.machines.disks {
            disk.lose_power().map_err(|error| format!("power can't be taken away: {error}"))?;
        }
        self.disturbed(&all, from, true);
        self.excuses.power_lost = Some(from);
        for disk in &self.machines.disks {
            disk.power_again().map_err(|error| format!("power can't be given back: {error}"))?;
        }
        all.iter().for_each(|node| self.machines.begin(*node));
        self.healed(&all);
        Ok(Some(format!("power loss (a flush took {:.2} s)", flush.as_secs_f64())))
    }

    /// Waits until every client was answered after this moment; how long that took.
    fn wait_until_back(&mut self, step: &Step, healed: Moment) -> Result<Duration, String> {
        let power = self.excuses.power_lost.is_some();
        let within = if power { BACK_AFTER_POWER_LOSS } else { BACK_WITHIN };
        loop {
            self.supervise(step);
            let late = self.late(healed);
            let took = self.now().saturating_sub(healed);
            if late.is_empty() {
                return Ok(took);
            }
            if took > within {
                return Err(format!("no answer within {within:?} after healing: {late:?}"));
            }
            std::thread::sleep(LOOK_EVERY / 2);
        }
    }

    /// Clients that were not answered since.
    fn late(&self, healed: Moment) -> Vec<String> {
        let mut late = Vec::new();
        for service in &self.services {
            let seen = service.seen();
            let old = seen.last.iter().filter(|(_, (_, at))| *at <= healed);
            late.extend(old.map(|(name, (gateway, _))| format!("{name} (n{})", gateway + 1)));
        }
        if self.web.as_ref().is_some_and(|web| web.last() <= healed) {
            late.push("web".into());
        }
        late
    }

    fn wait_until_whole(&mut self, step: &Step, since: Moment) -> Result<(), String> {
        loop {
            self.supervise(step);
            let look = self.machines.look(0..self.machines.count);
            let trouble = match look {
                Some(look) => look.trouble(&HELD, self.machines.count),
                None => Some("nobody answers".into()),
            };
            let Some(trouble) = trouble else { return Ok(()) };
            if self.now().saturating_sub(since) > WHOLE_WITHIN {
                return Err(format!("not whole again within {WHOLE_WITHIN:?}: {trouble}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn epochs_now(&self) -> Option<BTreeMap<&'static str, u64>> {
        let look = self.machines.look(0..self.machines.count)?;
        let names = HELD.iter().chain(self.web.as_ref().map(|_| &"web"));
        names.map(|name| Some((*name, look.epoch(name)?))).collect()
    }

    /// What broke since the last step has no excuse but what is left of that step's.
    pub(crate) fn judge_calm(&mut self, step: &Step) {
        let epochs = self.epochs_now();
        if let Some(epochs) = epochs.filter(|epochs| *epochs != self.epochs) {
            let what = format!("a takeover without a fault: {:?} -> {epochs:?}", self.epochs);
            self.violation(step, Violation::Other(what));
            self.epochs = epochs;
        }
        self.judge_breaks(step, &BTreeMap::new());
        let failed = self.web.as_ref().map(|web| web.take().failed).unwrap_or_default();
        for (at, gateway, error) in failed {
            let what = format!("web through n{} at {at:?} without a fault: {error}", gateway + 1);
            self.violation(step, Violation::Other(what));
        }
    }

    /// Judges what was seen in a step; how many takeovers there were.
    fn judge(&mut self, step: &Step, answers_before: u64) -> Result<u64, String> {
        let epochs = self.epochs_now().ok_or("nobody answers")?;
        let before = std::mem::replace(&mut self.epochs, epochs);
        let new: BTreeMap<&'static str, u64> =
            self.epochs.iter().map(|(name, epoch)| (*name, epoch - before[name])).collect();
        let allowed = self.judge_breaks(step, &new);
        let doubtful = self.services.iter().map(|one| one.seen().book.doubtful()).collect();
        self.settle_keys_of(step, doubtful, &new);
        if let Some(web) = &self.web {
            // It may fail as long as anything is wrong; what it says was looked at.
            web.take();
        }
        let disturbed: Vec<usize> = self.excuses.disturbed.iter().map(|what| what.node).collect();
        let held = self.services.iter().filter(|one| one.name != "free");
        let outage = held
            .flat_map(|one| one.seen().slowest.clone())
            .filter(|(gateway, _)| !disturbed.contains(gateway))
            .map(|(_, took)| took)
            .max();
        let answers: u64 = self.services.iter().map(|one| one.seen().answers).sum();
        let row = self.row(step.faults[0].kind);
        let takeovers = new.values().sum();
        row.takeovers += takeovers;
        row.answers += answers - answers_before;
        row.resets += allowed;
        row.outages.extend(outage);
        Ok(takeovers)
    }

    /// How many breaks were allowed; the others are violations.
    fn judge_breaks(&mut self, step: &Step, new: &BTreeMap<&'static str, u64>) -> u64 {
        let mut allowed = 0;
        let mut found = Vec::new();
        for service in &self.services {
            let mut seen = service.seen();
            let promise = seen.book.promise();
            let restored = new.get(service.name).is_some_and(|count| *count > 0);
            let excuses = Excuses { restored, ..self.excuses.clone() };
            for one in std::mem::take(&mut seen.breaks) {
                match may_break(&one, promise, &excuses) {
                    Some(_) => allowed += 1,
                    None => found.push(Violation::Broken(one)),
                }
            }
            found.append(&mut seen.violations);
        }
        found.into_iter().for_each(|violation| self.violation(step, violation));
        allowed
    }

    fn settle_keys(&mut self, step: &Step, keys: Vec<Vec<String>>) {
        self.settle_keys_of(step, keys, &BTreeMap::new());
    }

    /// Looks at these keys of each service.
    fn settle_keys_of(
        &mut self,
        step: &Step,
        keys: Vec<Vec<String>>,
        new: &BTreeMap<&'static str, u64>,
    ) {
        let mut found = Vec::new();
        let mut lost: BTreeMap<&'static str, Duration> = BTreeMap::new();
        for (service, keys) in self.services.iter().zip(keys) {
            let restored = new.get(service.name).is_some_and(|count| *count > 0);
            let excuses = Excuses { restored, ..self.excuses.clone() };
            let address = self.machines.cluster.address(0, service.port);
            let answers = read_all(address, &keys);
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    let what = format!("{} can't be read: {error}", service.name);
                    found.push(Violation::Other(what));
                    continue;
                }
            };
            for (key, value) in keys.iter().zip(answers) {
                match service.seen().book.found(key, value, &excuses) {
                    Ok(None) => {}
                    Ok(Some(span)) => {
                        let most = lost.entry(service.name).or_default();
                        *most = (*most).max(span);
                    }
                    Err(violation) => found.push(violation),
                }
            }
        }
        found.into_iter().for_each(|violation| self.violation(step, violation));
        if self.excuses.power_lost.is_some() {
            self.judge_doubts(step, &lost);
        }
        if let Some(fault) = step.faults.first() {
            let row = self.row(fault.kind);
            for (service, span) in lost {
                let most = row.lost.entry(service).or_default();
                *most = (*most).max(span);
            }
        }
    }

    /// What may be missing after a power loss is said, and nothing else is.
    fn judge_doubts(&mut self, step: &Step, lost: &BTreeMap<&'static str, Duration>) {
        let Some(look) = self.machines.look(0..self.machines.count) else { return };
        let events: Vec<_> = (0..self.machines.count)
            .flat_map(|node| self.machines.cluster.events(node))
            .filter(|event| event["type"] == "state_may_be_missing")
            .collect();
        for name in HELD {
            let said = events.iter().any(|event| event["service"] == look.id(name));
            if name == "disk" && said {
                let what = "disk: state_may_be_missing, and nothing can be".into();
                self.violation(step, Violation::Other(what));
            }
            if name != "disk" && !said && lost.contains_key(name) {
                let what = format!("{name} lost something, and nobody says state_may_be_missing");
                self.violation(step, Violation::Other(what));
            }
        }
    }

    /// Notes and prints a violation.
    pub fn violation(&mut self, step: &Step, what: Violation) {
        let kinds: Vec<&str> = self.options.draw.kinds.iter().map(|kind| kind.name()).collect();
        let again = format!(
            "cargo xtask soak --seed {} --from {} --faults 1{}{}",
            self.options.draw.seed,
            step.number,
            if self.options.draw.short { " --short" } else { "" },
            if kinds.len() < KINDS.len() {
                format!(" --kinds {}", kinds.join(","))
            } else {
                "".into()
            }
        );
        println!("VIOLATION in step {}: {what}\n  again: {again}", step.number);
        if !std::mem::replace(&mut self.shown, true) {
            println!("-- timeline:\n{}--", self.machines.cluster.newest(LINES_SHOWN));
        }
        self.report.violations.push((what.to_string(), again));
    }

    /// What some node says.
    pub fn look(&self) -> Option<Look> {
        self.machines.look(0..self.machines.count)
    }
}

fn start_web(machines: &mut Machines, began: Instant) -> Option<Web> {
    if !clients::installed(&["python3"]) {
        return None;
    }
    let pages = machines.cluster.folder().join("pages");
    std::fs::create_dir(&pages).expect("a folder can be made");
    std::fs::write(pages.join("page.txt"), PAGE).expect("a page can be written");
    machines.cluster.must_apply(&format!(
        "name = \"web\"\n[engine]\nkind = \"exec\"\n\
         command = [\"python3\", \"-m\", \"http.server\", \"--bind\", \"127.0.0.1\", \
         \"--directory\", {pages:?}, \"{{port}}\"]\n{}\n\
         [[port]]\nname = \"http\"\nlisten = {WEB_PORT}\n[state]\noutput = \"free\"\n",
        clients::user()
    ));
    machines.cluster.wait_until_open(WEB_PORT);
    let gateways = (0..machines.count).map(|node| machines.cluster.address(node, WEB_PORT));
    let web = Web::start(gateways.collect(), began);
    let asked = Instant::now();
    while web.last() == Moment::ZERO {
        assert!(asked.elapsed() < BACK_WITHIN, "web doesn't answer: {:?}", web.take());
        std::thread::sleep(LOOK_EVERY);
    }
    web.take();
    Some(web)
}

fn read_all(address: std::net::SocketAddr, keys: &[String]) -> std::io::Result<Vec<u64>> {
    let mut connection = Connection::open(address)?;
    keys.iter()
        .map(|key| match connection.call(&["GET", key])?.as_str() {
            "(nil)" => Ok(0),
            text => text.parse().map_err(std::io::Error::other),
        })
        .collect()
}

/// The machine's load average of the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().into()
}
