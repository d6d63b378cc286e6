//! Every word the page says, in one table.
//!
//! A text is known by a typed key, so that a missing or misspelt one does not compile; a language is one column. Places to
//! fill are `{named}`. Counted texts have their forms in one entry, `one|other`, with `{n}` for the count; a language with
//! more forms brings its own rule. What comes from the cluster (names, messages, reasons, columns) is never translated.
//!
//! Adding a language: one more list in the order of the keys (the macro keeps them together), its code, its direction and
//! its plural rule in [`Language`].

use std::fmt::Display;

macro_rules! words {
    ($($key:ident $english:literal,)*) => {
        /// A text's key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Word { $($key),* }
        impl Word {
            pub const ALL: &'static [Word] = &[$(Word::$key),*];
        }
        static ENGLISH: &[&str] = &[$($english),*];
    };
}

/// A language: its texts in the order of the keys.
pub struct Language {
    /// As in `<html lang>`.
    pub code: &'static str,
    /// `ltr` or `rtl`, as in `<html dir>`.
    pub direction: &'static str,
    texts: &'static [&'static str],
    /// Which of an entry's forms a count takes.
    form: fn(i64) -> usize,
}

pub static ENGLISH_LANGUAGE: Language =
    Language { code: "en", direction: "ltr", texts: ENGLISH, form: |n| usize::from(n != 1) };

/// The page's language. One for now; this is where the choice goes.
pub fn language() -> &'static Language {
    &ENGLISH_LANGUAGE
}

/// The text of a key.
pub fn t(word: Word) -> &'static str {
    language().texts[word as usize]
}

impl Word {
    /// The text with its places filled.
    pub fn with(self, values: &[(&str, &dyn Display)]) -> String {
        fill(t(self), values)
    }
}

/// A counted text: `1 pod`, `3 pods`.
pub fn plural(word: Word, n: i64) -> String {
    let forms: Vec<&str> = t(word).split('|').collect();
    let form = (language().form)(n).min(forms.len() - 1);
    fill(forms[form], &[("n", &n)])
}

fn fill(text: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let Some(end) = rest[start..].find('}') else { break };
        let name = &rest[start + 1..start + end];
        out.push_str(&rest[..start]);
        match values.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => out.push_str(&value.to_string()),
            None => out.push_str(&rest[start..=start + end]),
        }
        rest = &rest[start + end + 1..];
    }
    out.push_str(rest);
    out
}

words! {
    // Times and counts
    JustNow "just now",
    Ago "{span} ago",
    Seconds "{n} second|{n} seconds",
    Minutes "{n} minute|{n} minutes",
    Hours "{n} hour|{n} hours",
    Days "{n} day|{n} days",
    Restarts "{n} restart|{n} restarts",
    Pods "{n} pod|{n} pods",
    Endpoints "{n} endpoint|{n} endpoints",
    NewLines "{n} new line|{n} new lines",
    Errors "{n} problem|{n} problems",
    Objects "{n} object|{n} objects",
    Unknown "unknown",
    Waiting "waiting",
    Loading "Loading…",
    PartMissing "This part of the page could not be fetched.",
    LoadPageAgain "Load the page again",

    // States
    StateIdle "Idle",
    StateGood "Healthy",
    StateProgressing "Progressing",
    StateUnknown "Unknown",
    StateDegraded "Degraded",
    StateFailing "Failing",

    // Pods
    PodSucceeded "Completed.",
    PodFailed "Failed.",
    PodEvicted "Evicted from its node.",
    PodFailedContainer "Failed: container {container} {exit}.",
    PodNodeSilent "Unknown: node {node} was last heard from {ago}.",
    PodLeaving "Shutting down.",
    PodLeavingLate "Should have been gone {span} ago, but its node has not confirmed it yet.",
    PodLeavingFinalizers "Waits to be removed since {span}, held by {finalizers}.",
    PodLeavingUnconfirmed "Marked for deletion; whether it still runs on {node} is unknown, because that node is silent.",
    PodUnplaced "Waiting to be given a node.",
    PodNoNodes "Pending for {span}: the cluster has no nodes.",
    PodNoRoom "Pending for {span}: no node has enough CPU or memory free.",
    PodNodesCordoned "Pending for {span}: the nodes that would fit are cordoned.",
    PodNodesAway "Pending for {span}: the nodes that would fit are not ready.",
    PodTaints "Pending for {span}: the nodes that would fit have taints that it does not tolerate.",
    PodAffinity "Pending for {span}: no node has the labels it asks for.",
    PodBadCompany "Pending for {span}: on the nodes that would fit run pods that it must keep apart from.",
    PodNoCompany "Pending for {span}: the pods that it must run near are on no node that would fit.",
    PodSkewed "Pending for {span}: on the nodes that would fit, pods like it would be spread too unevenly.",
    PodNowhere "Pending for {span}: no node can take it.",
    PodInitializing "Starting: init container {container} is running.",
    PodStarting "Starting on {node}.",
    PodCrashing "Container {container} keeps crashing: it {exit} {ago}, after {restarts}.",
    PodImagePull "The image {image} of container {container} cannot be pulled.",
    PodImageAbsent "The image {image} of container {container} is not on the node, and its policy is never to pull.",
    PodImageName "The image name {image} of container {container} is not valid.",
    PodConfig "Container {container} cannot be made: something that it refers to is missing.",
    PodCannotStart "Container {container} cannot start: {reason}.",
    PodEnded "Container {container} {exit} {ago}.",
    PodNotReady "Running, but container {container} is not ready.",
    PodNotReadyPod "Running, but not ready.",
    PodRunning "Running on {node}, started {ago}.",
    PodRunningRestarted "Running on {node}, started {ago}; {restarts} so far, the last one because it {exit}.",

    // How containers end
    ExitUnknown "ended in an unknown way",
    ExitOom "was killed because it used more memory than its limit",
    ExitCode "exited with code {code}",
    ExitSignal "exited with code {code} (signal {signal})",
    ExitMeaning "exited with code {code} ({meaning})",
    ExitDone "done",
    ExitError "an error of the program",
    ExitUsage "wrong usage of a command",
    ExitNotExecutable "the command cannot be executed",
    ExitNotFound "the command was not found",
    ExitInterrupted "interrupted",
    ExitAborted "aborted by itself",
    ExitKilled "killed",
    ExitSegfault "a memory fault in the program",
    ExitTerminated "asked to stop",
    ContainerWaiting "Waiting: {reason}",
    ContainerEnded "It {exit}, {ago}",
    ContainerRunning "Running since {ago}",
    ContainerRunningUnready "Running since {ago}, not ready",

    // Deployments
    DeploymentServing "Serving {ready} of {wanted}, changed {ago}.",
    DeploymentUnseen "The last change has not been taken up yet; serving {ready}.",
    DeploymentLeaving "Being deleted.",
    DeploymentCannotCreate "Serving {ready} of {wanted}: new pods are refused.",
    DeploymentStuck "The rollout is stuck: {updated} of {wanted} updated, serving {ready}.",
    DeploymentScalingDown "Scaling to nothing.",
    DeploymentScaledToNothing "Scaled to nothing.",
    DeploymentPaused "The rollout is paused: {updated} of {wanted} updated, serving {ready}.",
    DeploymentRolling "Rolling out: {updated} of {wanted} updated, serving {ready}.",
    DeploymentDown "Down: none of {wanted} is available.",
    DeploymentShort "Serving {ready} of {wanted}.",
    DeploymentStarting "Starting: serving {ready} of {wanted}.",

    // Why a pod is where it is
    WhyHere "Why here",
    WhyChosen "Chosen out of {feasible} that would do, of {nodes}.",
    WhyRoomMade "Room is being made on {node}: {victims} have to go.",
    WhyNowhere "None of {nodes} will do.",
    PartTaints "Taints",
    PartNodeAffinity "Preferred nodes",
    PartSpread "Spread",
    PartPodAffinity "Company",
    PartRoom "Free room",
    PartBalance "Balance",
    NodeCount "{n} node|{n} nodes",

    // Nodes
    NodeJoining "Joined {ago}, has not reported yet.",
    NodeSilent "Silent: last heard from {ago}. What runs there is unknown.",
    NodeNotReady "Connected, but not ready for pods.",
    NodeDisk "Ready, but its disk is nearly full.",
    NodeMemory "Ready, but its memory is nearly used up.",
    NodeProcesses "Ready, but it has nearly run out of process ids.",
    NodeNetwork "Connected, but its pod network is not available.",
    NodeCordoned "Ready for {span}, and cordoned: it takes no new pods.",
    NodeReady "Ready for {span}.",
    NodeReadyWithPods "Ready for {span}, running {pods}.",
    CheckConnected "Connected",
    CheckAddress "Address",
    CheckRuntime "Container runtime",
    CheckRange "Pod addresses",
    CheckDisk "Disk space",
    CheckReady "Ready for pods",

    // Services
    ServiceExternal "A name for {name}.",
    ServiceNoSelector "Has no selector and no endpoints.",
    ServiceNobody "No pod matches its selector, so nobody answers.",
    ServiceNoneReady "None of its {all} endpoints is ready, so nobody answers.",
    ServiceServing "Answered by {ready}, all ready.",
    ServicePartly "{ready} of {all} endpoints are ready.",

    // Domains
    DomainServed "Served at {address}.",
    DomainNobody "Served at {address}, but nobody answers behind {service}.",
    DomainPartly "Served at {address}, with a problem that was found {ago}.",
    DomainRefused "Not served: a problem was found {ago}.",
    DomainTaken "Not served: another cluster has that host.",
    DomainUnproven "Not served yet: that the host is yours has to be proven.",
    DomainJustMade "On its way to the edge.",
    DomainNoAddress "Has no address: nobody serves it.",
    DomainNoSuchService "no such Service",
    DomainNoSuchPort "the Service has no such port",
    DomainReady "{ready} of {all} ready",
    DomainAnyHost "Any other host",
    TlsAutomatic "Certificate by itself",
    TlsSecret "Certificate in Secret {name}",
    TlsNone "Without TLS",

    // Why A reaches B
    Outside "Outside",
    StepSender "From",
    StepEntrance "Way in",
    StepName "Name",
    StepService "Service",
    StepReceiver "Pod",
    StepEgress "Policies of who asks",
    StepIngress "Policies of who is asked",
    StepPath "Path",
    ReachYes "{a} reaches {b}.",
    ReachPerhaps "{a} reaches {b}, with a reservation.",
    ReachNot "{a} can't reach {b}.",
    ReachGone "There is no {name} (any more).",
    ReachNotRunning "{name} doesn't run: it is {phase}.",
    ReachRuns "{name} runs, at {address}.",
    ReachUndeclared "{name} runs, but no container says that it listens on {port}. It may all the same.",
    ReachOut "The node {node} lets it out under its own address.",
    ReachHostPort "Port {port} of node {node} leads to it.",
    ReachNoEntrance "Nothing leads to it from outside.",
    ReachNodePort "Port {port} of each node leads to it.",
    ReachIngress "The domain {name} leads to it.",
    ReachIngressIdle "The domain {name} leads to it, but has no address: nobody serves it.",
    ReachIngressFree "What comes by a domain is passed on by the pod's own node, which policies always let in.",
    ReachAnotherName "{name} is another name of {other}.",
    ReachItsPods "the addresses of its pods",
    ReachName "The name {name} leads to {address}.",
    ReachNoNames "It can't look up names: {policies} allows no connection to the name server.",
    ReachNoPort "It has no port {port}, only {ports}.",
    ReachByNode "{name} is answered by each node itself.",
    ReachEndpoints "{ready} of {all} endpoints are ready.",
    ReachNoneReady "None of {all} endpoints is ready.",
    ReachNoEndpoints "No pod matches its selector and has that port.",
    ReachNotLocal "It takes connections from its pods' own nodes only, and none is on the node of who asks.",
    ReachFreeOut "No policy isolates who asks: everything may go out.",
    ReachFreeIn "No policy isolates who is asked: everything may come in.",
    ReachAllowed "{policies} allows {port}.",
    ReachAllowedSome "{policies} allows {port} with some addresses only.",
    ReachDeniedOut "{policies} isolates who asks, and nothing allows {port} to there.",
    ReachDeniedIn "{policies} isolates who is asked, and nothing allows {port} from there.",
    ReachDeniedSome "{policies} keeps {denied} of {all} endpoints out of reach.",
    ReachSilent "Packets are dropped without an answer: a connection hangs until its time is over.",
    ReachAway "Node {node} is not connected: what holds there now is not known.",
    ReachSameNode "Both run on {node}.",
    ReachNodeThere "Node {node} is connected.",
    ReachNodes "From {a} to {b}:",
    ReachNoLink "From {a} to {b} no packet has gone yet; the first one makes the path.",
    NextChoose "Choose another one.",
    NextEntrance "Give its Service a domain, or a port on the nodes (type NodePort).",
    NextNames "Allow egress to pods k8s-app=kube-dns in kube-system, UDP and TCP 53.",
    NextPort "Use one of its ports, or add it.",
    NextLocal "Run a pod of it on each node, or set internalTrafficPolicy to Cluster.",
    NextEgress "Add an egress rule for {port} to {peer}.",
    NextIngress "Add an ingress rule for {port} from {peer}.",

    // Next steps
    NextAnotherHost "Choose another host, or ask who has it to give it up.",
    NextProveHost "Add the TXT record below; it is looked for again by itself.",
    NextConflict "Change the host or the path of one of the two.",
    NextCertificate "Look at the Secret that holds its certificate.",
    NextEdge "This installation may have no edge yet: it is switched on where the server is started. Everything else stays as it is.",
    NextAddNode "Add a node.",
    NextRoom "Add a node, or ask for less.",
    NextUncordon "Uncordon it to let pods come.",
    NextLookAtNode "Look at the node.",
    NextLookAtNodes "Look at the nodes.",
    NextLookAtPods "Look at its pods.",
    NextTolerate "Add a toleration, or remove the taint.",
    NextAffinity "Change what it asks for, or label a node.",
    NextCompany "Change its affinity or spread rules, or add a node.",
    NextReadLogs "Read its logs.",
    NextReadLastLogs "Read the last lines before it died.",
    NextImage "Check the name and tag, and whether the registry needs a pull secret.",
    NextConfig "Create what is missing, or change the reference.",
    NextEdit "Change what it asks for.",
    NextProbe "Its readiness probe has not succeeded; its logs may say why.",
    NextRollBack "Roll back to the revision before.",
    NextResume "Resume the rollout.",
    NextCheckAgent "Check that the machine is on, reaches this address, and runs longshore-agent. Its containers go on without us.",
    NextCheckDocker "Check the container runtime on the machine.",
    NextSelector "Compare its selector with the labels of the pods.",

    // Attention
    AttentionNode "Node {name}",
    AttentionDeployment "Rollout of {name}",
    AttentionPod "{name} {what}",
    AttentionPods "{count} of {name} {what}",
    AttentionPodDetail "{status} in {namespace}, oldest made {ago}",
    WhatCrashes "keeps crashing|keep crashing",
    WhatImage "cannot pull its image|cannot pull their image",
    WhatMemory "runs out of memory|run out of memory",
    WhatPending "waits for a node|wait for a node",
    WhatStarting "is slow to start|are slow to start",
    WhatNotReady "is not ready|are not ready",
    WhatUnknown "is not heard from|are not heard from",
    WhatEvicted "was evicted|were evicted",
    WhatFails "does not start|do not start",

    // Pages
    AnyPort "The first",
    CellAddresses "Some addresses",
    CellAll "All",
    CellLabel "From {from} to {to}: {what}. Why?",
    CellNone "None",
    ChooseParties "Choose who asks and who is asked.",
    Matrix "Who may reach whom",
    MatrixCaption "Each row is who asks, each column who is asked.",
    MatrixHidden "{n} more workload has no row here: choose a namespace.|{n} more workloads have no row here: choose a namespace.",
    MatrixText "By network policies alone, at the ports of pods. A cell leads to why.",
    PartyA "Who asks",
    PartyB "Who is asked",
    PartyHint "outside, pod:… or service:…",
    Policies "Policies",
    PolicyList "All policies",
    Protocol "Protocol",
    ReachIt "Why can't A reach it",
    Topology "Topology",
    TheServer "Server",
    HasService "A Service leads to it",
    Tunnel "Connected to the server",
    NotConnected "Not connected",
    ChooseNode "Choose a node to see its links.",
    NoLinks "No packets between pods of different nodes yet: a link is made by the first one.",
    NodesNotDrawn "{n} node is not drawn, but in the list.|{n} nodes are not drawn, but in the list.",
    MoreWorkloads "And {n} more workload.|And {n} more workloads.",
    OpenNode "Open this node",
    Reach "Why can't A reach B",
    Domains "Domains",
    DomainsTitle "Hosts and where they lead",
    DnsTitle "DNS records",
    DnsText "Add these where the domain is managed.",
    FirstDomainText "A domain lets the world reach a Service. Open one and give it a domain.",
    GiveDomain "Give it a domain",
    HostField "Host",
    OpenHost "Open {host}",
    UseTls "With TLS, its certificate made by itself",
    Create "Create",
    ActionChangeImage "Change image",
    ActionEdit "Edit YAML",
    ActionLogs "Logs",
    ActionPreviousLogs "Last lines",
    ActionResume "Resume",
    ActionRollBack "Roll back",
    ActionShowNodes "Nodes",
    ActionShowPods "Pods",
    ActionUncordon "Uncordon",
    AddNode "Add a node",
    Address "Address",
    AllKinds "All kinds",
    AllNamespaces "All namespaces",
    AllWell "Nothing needs you.",
    Apply "Apply",
    ApplyInto "Documents without a namespace go into {namespace}.",
    BinaryBytes "{n} bytes",
    Cancel "Cancel",
    Changed "changed",
    ChangedMeanwhile "It was changed by someone else while you edit.",
    Close "Close",
    Cluster "Cluster",
    Conditions "Conditions",
    ConfigMaps "Config maps",
    ConfigureYaml "Go on in YAML",
    Connecting "Connecting",
    Container "Container",
    Containers "Containers",
    Copied "Copied",
    Copy "Copy",
    CopyKubectl "Copy as kubectl",
    ServeDomains "Serve domains",
    ServeDomainsNot "Serve no domains",
    ServesDomains "This node serves domains now.",
    ServesDomainsNot "This node serves no domains any more.",
    DomainPorts "Domains at ports",
    Cordon "Cordon",
    Cordoned "Cordoned: no new pods come here.",
    Cpu "CPU",
    Created "created",
    Current "current",
    Data "Data",
    Delete "Delete",
    DeleteText "It and all that it owns will be deleted.",
    DeleteTitle "Delete {name}?",
    DeletionStarted "Deletion has begun.",
    Deploy "Deploy",
    DeployForm "From a form",
    DeployYaml "Deploy from YAML",
    Deployments "Deployments",
    Dismiss "Dismiss",
    Download "Download",
    DryRun "Check",
    EditorHint "Tab indents; Escape, then Tab, leaves the editor.",
    Email "E-mail",
    EndpointsTitle "Endpoints",
    Environment "Environment",
    EnvironmentHint "NAME=value, one in a line; a whole .env file can be pasted.",
    Events "Events",
    FieldMissing "{field} is missing",
    Filter "Filter, or key=value for a label",
    FilterWords "Filter",
    FirstApp "Deploy your first app",
    FirstAppText "Name an image and how many copies of it should run; the cluster does the rest.",
    FirstNode "Add the first machine",
    FirstNodeText "Paste one line on any Linux machine with Docker; it will show up here.",
    Follow "Follow",
    GoTo "Go to",
    Gone "It does not exist, or was deleted.",
    Hide "Hide",
    History "History",
    Home "Home",
    HowFarBack "How far back",
    Image "Image",
    Images "Images",
    KeyClose "Close",
    KeyFilter "Filter the list",
    KeyHelp "This list",
    KeyLogs "Logs of the chosen pod",
    KeyMove "Move down and up a list",
    KeyOpen "Open the chosen row",
    KeyPalette "Go to anything",
    Labels "Labels",
    LastLines "Last {n} lines",
    Line "Line {n}",
    LinesDropped "{n} earlier lines are not kept here.",
    Live "Live",
    LoadNewest "Load the newest",
    LogEnded "The log ends here.",
    LogNothingYet "Nothing yet.",
    LinkDirect "Direct",
    LinkDirectText "{address}, {milliseconds} ms there and back",
    LinkNone "No packets between pods of this node and others yet.",
    LinkRelayed "Over the server",
    LinkRelayedText "The two find no direct path; trying goes on.",
    LinkTraffic "{sent} out, {received} in",
    LinksTitle "Other nodes",
    Logs "Logs",
    Made "Created",
    Memory "Memory",
    More "More",
    Name "Name",
    NameHint "From the image",
    Namespace "Namespace",
    Navigation "Pages",
    NeedsAttention "Needs attention",
    NewApp "Deploy an app",
    NewNodes "New nodes",
    NoClusters "You are a member of no cluster yet.",
    NoEvents "No events.",
    NoEventsText "What the cluster does is noted here for an hour.",
    NoPods "No pods.",
    NoSuchKind "The cluster has no such kind.",
    Node "Node",
    Nodes "Nodes",
    NoneYet "No {what} here yet",
    Notes "Notes",
    NothingFound "Nothing found.",
    NothingMatches "Nothing matches the filter.",
    NothingToApply "There is no document to apply.",
    Overview "Overview",
    PageNotFound "There is no such page.",
    Owner "Belongs to",
    Palette "Go to anything",
    PaletteHint "Go to…",
    Password "Password",
    PasteLine "Paste this line on the machine",
    PasteLineText "Linux with Docker, as root. Only outbound connections are made.",
    Pause "Pause",
    PauseRollout "Pause rollout",
    Paused "The rollout is paused.",
    PodsTitle "Pods",
    Port "Port",
    PortHint "Where it listens",
    Ports "Ports",
    Preview "What will be applied",
    Previous "Before it restarted",
    Profile "Profile",
    Ready "Ready",
    RecentEvents "Recent events",
    Reachable "Other pods reach it as {name}",
    Reconnecting "Reconnecting",
    Replicas "Replicas",
    RequestId "Request {id}",
    Resources "Resources",
    ResourcesHint "Empty: as much as the node has",
    Restart "Restart",
    Restarting "Restarting, one pod after the other.",
    Resumed "The rollout goes on.",
    Reveal "Reveal",
    RevisionNumber "Revision {n}",
    RollOut "Roll out",
    RollingBack "Rolling back.",
    RollingOut "Rolling out the new image.",
    SampleApp "Try the sample",
    Save "Save",
    Saved "Saved.",
    Scale "Scale",
    Scaling "Scaling.",
    Secrets "Secrets",
    ServerUnreachable "The server cannot be reached.",
    Services "Services",
    SessionExpired "Your session has ended. Sign in again.",
    Shortcuts "Keyboard shortcuts",
    SignIn "Sign in",
    SignInHelp "Locked out? An owner of the organization can help.",
    SignOut "Sign out",
    SkipToContent "Skip to content",
    Strategy "Strategy",
    StaleSince "Stale for {span}",
    ThemeDark "Dark",
    ThemeLight "Light",
    ThemeSystem "As the system",
    Times "{n} time,|{n} times,",
    Timestamps "Times",
    TokenFor "Good for {span}, for as many machines as you like.",
    TryAgain "Try again",
    TypeName "Type {name} to confirm",
    Unchanged "unchanged",
    Uncordoned "Uncordoned: pods may come again.",
    UnknownKind "the cluster has no {kind} in {version}",
    Updated "Updated",
    Version "Version",
    WaitingForNode "Waiting for a machine to connect…",
    WouldApply "would be accepted",
    Wrap "Wrap",
    WrongPassword "E-mail or password is wrong.",
    Yaml "YAML",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_text_and_its_places_are_closed() {
        assert_eq!(Word::ALL.len(), ENGLISH.len());
        for word in Word::ALL {
            let text = t(*word);
            assert!(!text.is_empty(), "{word:?}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{word:?}");
        }
    }

    #[test]
    fn fills_and_counts() {
        assert_eq!(plural(Word::Pods, 1), "1 pod");
        assert_eq!(plural(Word::Pods, 0), "0 pods");
        assert_eq!(Word::Ago.with(&[("span", &"x")]), "x ago");
        assert_eq!(fill("{a} {b", &[("a", &1)]), "1 {b");
    }
}
