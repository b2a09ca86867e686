//! Who a process runs as: numbers, or names looked up in the container's own `/etc/passwd` and `/etc/group`.

use std::fs;

use thiserror::Error;

/// User, groups and home directory of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: Option<String>,
}

/// The user or group isn't known.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UserError {
    #[error("user not found in image: {0} (no such name in /etc/passwd)")]
    NoUser(String),
    #[error("group not found in image: {0} (no such name in /etc/group)")]
    NoGroup(String),
}

impl Identity {
    /// The numbers the specification gives.
    pub(crate) fn of_spec(user: &oci_spec::runtime::User) -> Self {
        let groups = with_primary(user.gid(), user.additional_gids().clone().unwrap_or_default());
        let home = Passwd::find_uid(&read("/etc/passwd"), user.uid()).map(|entry| entry.home);
        Self { uid: user.uid(), gid: user.gid(), groups, home: home.or_else(|| Some("/".to_owned())) }
    }

    /// Looks up `user` or `user:group`, each a name or a number, in the caller's root.
    pub(crate) fn look_up(text: &str) -> Result<Self, UserError> {
        resolve(text, &read("/etc/passwd"), &read("/etc/group"))
    }
}

/// A file that doesn't exist names nobody.
fn read(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, group_part) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = Passwd::find_name(passwd, user).or_else(|| Passwd::find_uid(passwd, user.parse().ok()?));
    let entry = match (entry, user.parse()) {
        (Some(entry), _) => entry,
        // A number needs no entry; then the group is root's, as everywhere.
        (None, Ok(uid)) => Passwd { name: user.to_owned(), uid, gid: 0, home: "/".to_owned() },
        (None, Err(_)) => return Err(UserError::NoUser(user.to_owned())),
    };
    // Naming a group means exactly that group.
    let (gid, others) = match group_part {
        Some(name) => (group_id(group, name)?, Vec::new()),
        None => (entry.gid, groups_of(group, &entry.name)),
    };
    Ok(Identity { uid: entry.uid, gid, groups: with_primary(gid, others), home: Some(entry.home) })
}

/// The primary group is among the others too: a process that changes its primary group (a set-group-id file does it) must
/// not get rid of a group that a file's permissions exclude.
fn with_primary(gid: u32, mut others: Vec<u32>) -> Vec<u32> {
    others.retain(|other| *other != gid);
    others.insert(0, gid);
    others
}

#[derive(Debug, Clone)]
struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Passwd {
    fn find_name(text: &str, name: &str) -> Option<Self> {
        text.lines().filter_map(Self::parse).find(|entry| entry.name == name)
    }

    fn find_uid(text: &str, uid: u32) -> Option<Self> {
        text.lines().filter_map(Self::parse).find(|entry| entry.uid == uid)
    }

    /// `name:password:uid:gid:comment:home:shell`
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split(':').collect();
        let home = fields.get(5).copied().filter(|home| !home.is_empty()).unwrap_or("/");
        Some(Self {
            name: (*fields.first()?).to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: home.to_owned(),
        })
    }
}

/// `name:password:gid:member,member`
fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or_default()))
}

fn group_id(text: &str, name: &str) -> Result<u32, UserError> {
    let named = text.lines().filter_map(parse_group).find(|(n, ..)| *n == name).map(|(_, gid, _)| gid);
    named.or_else(|| name.parse().ok()).ok_or_else(|| UserError::NoGroup(name.to_owned()))
}

fn groups_of(text: &str, user: &str) -> Vec<u32> {
    let is_member = |members: &str| members.split(',').any(|member| member == user);
    text.lines()
        .filter_map(parse_group)
        .filter(|(_, _, members)| is_member(members))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:,,,:/srv/web:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:web,other\nssl:x:201:root,web\n";

    fn check(text: &str, expected: Result<(u32, u32, &[u32], &str), UserError>) {
        let got = resolve(text, PASSWD, GROUP);
        let expected = expected.map(|(uid, gid, groups, home)| Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: Some(home.to_owned()),
        });
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn users_are_names_or_numbers_with_or_without_a_group() {
        check("", Ok((0, 0, &[0, 201], "/root")));
        check("web", Ok((101, 102, &[102, 200, 201], "/srv/web")));
        check("101", Ok((101, 102, &[102, 200, 201], "/srv/web")));
        check("web:logs", Ok((101, 200, &[200], "/srv/web")));
        check("4000", Ok((4000, 0, &[0], "/")));
        check("4000:4001", Ok((4000, 4001, &[4001], "/")));
        check(":web", Ok((0, 102, &[102], "/root")));
        check("nobody", Err(UserError::NoUser("nobody".into())));
        check("web:none", Err(UserError::NoGroup("none".into())));
        check("-1", Err(UserError::NoUser("-1".into())));
    }
}
