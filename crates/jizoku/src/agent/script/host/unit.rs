//! Systemd units, by way of `systemctl`.
//!
//! What it does not know: D-Bus.

use jizoku_script::run::HostCall;
use jizoku_script::value::Value;
use tokio::process::Command;

use super::command::run;
use super::{Answer, text, unknown, whole};

const SHOWN: &str = "--property=Id,LoadState,ActiveState,SubState,MainPID,NRestarts";

/// `unit.*`
pub(super) async fn call(name: &str, call: &HostCall) -> Answer {
    match name {
        "list" => {
            let shown = systemctl(&["show", "--all", SHOWN, "--", "*"]).await?;
            let mut units: Vec<_> = shown.split("\n\n").filter_map(unit).collect();
            units.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Value::list(units.into_iter().map(|(_, unit, _)| unit).collect()))
        }
        "status" => {
            let wanted = text(call, 0)?;
            let shown = systemctl(&["show", SHOWN, "--", wanted]).await?;
            match unit(&shown) {
                Some((_, unit, true)) => Ok(unit),
                _ => Err(format!("there is no unit `{wanted}`")),
            }
        }
        "start" | "stop" | "restart" | "reload" => {
            systemctl(&[name, "--no-ask-password", "--", text(call, 0)?]).await?;
            Ok(Value::None)
        }
        _ => Err(unknown(call)),
    }
}

async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("systemctl");
    command.args(arguments);
    let done = run(command, None).await?;
    if done.code != 0 {
        let why = String::from_utf8_lossy(&done.err);
        return Err(format!("systemctl {}: {}", arguments[0], why.trim()));
    }
    Ok(String::from_utf8_lossy(&done.out).into_owned())
}

/// A unit as `systemctl show` prints it: its name, its value, whether it is loaded.
fn unit(shown: &str) -> Option<(String, Value, bool)> {
    let property = |name: &str| {
        let lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    };
    let name = property("Id").to_string();
    let pid = property("MainPID").parse().ok().filter(|pid| *pid > 0);
    let state = format!("{}/{}", property("ActiveState"), property("SubState"));
    let value = Value::record([
        ("name", Value::text(name.as_str())),
        ("active", Value::Bool(property("ActiveState") == "active")),
        ("state", Value::text(state)),
        ("pid", pid.map_or(Value::None, Value::Int)),
        ("restarts", whole(property("NRestarts").parse().unwrap_or(0))),
    ]);
    (!name.is_empty()).then(|| (name, value, property("LoadState") == "loaded"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jizoku_script::types::{Type, UNIT};

    #[test]
    fn what_systemctl_shows_is_understood() {
        let shown = "MainPID=812\nNRestarts=2\nId=nginx.service\nLoadState=loaded\n\
                     ActiveState=active\nSubState=running\n";
        let (name, value, loaded) = unit(shown).expect("a unit");
        assert!(loaded && name == "nginx.service");
        assert!(value.is_a(Type::shape(&UNIT), &|_| Vec::new()));
        let Value::Record(record) = value else { panic!("a record") };
        assert_eq!(record.get("state"), Some(&Value::text("active/running")));
        assert_eq!(record.get("pid"), Some(&Value::Int(812)));
        assert_eq!(record.get("restarts"), Some(&Value::Int(2)));
        let (.., loaded) = unit("Id=no.service\nLoadState=not-found\n").expect("a unit");
        assert!(!loaded && unit("").is_none());
    }
}
