package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Setting is one key. Settings is the only place that lists them:
// files and variables are read through it, `berth config show` prints it, and
// `berth config template` writes the documentation from it.
type Setting struct {
	// Key is its name in berth.toml. A * stands for a registry's host.
	Key string
	// Doc says what it means, in whole sentences.
	Doc string
	// Open lets users set it for themselves, in their file or by variable.
	Open bool
	// Example is a TOML value for settings whose default says too little.
	Example string

	at    func(c *Config, host string) any // pointer to the field
	check func(value any) error            // nil: every value of the type is fine
	shown func(value any) any              // what `berth config show` prints; nil: the value
}

// Settings returns every setting, in the order in which it is documented.
func Settings() []Setting {
	return append([]Setting{
		{
			Key: "store.dir", check: absolute,
			Doc: "The node's image store. Root publishes images into it; keep it on a local disk.",
			at:  func(c *Config, _ string) any { return &c.Store.Dir },
		},
		{
			Key: "store.user_dir", Open: true, check: absoluteOrTilde, Example: `"~/.cache/berth"`,
			Doc: "The image store of a user, for commands that users run by hand. Built in: $XDG_CACHE_HOME/berth, or ~/.cache/berth. A leading ~/ is the user's home.",
			at:  func(c *Config, _ string) any { return &c.Store.UserDir },
		},
		{
			Key: "store.converter", Open: true, check: oneOf("stream", "umoci"),
			Doc: "How layers become an image: stream writes it while they arrive; umoci unpacks them into a folder and runs mksquashfs on that. Both give the same files.",
			at:  func(c *Config, _ string) any { return &c.Store.Converter },
		},
		{
			Key: "store.quota",
			Doc: "How much the images of the node's store may take together: bytes, or a share of its file system. Those that were not used for longest make room for new ones, but never one that a job uses or that is kept (berth keep). 0B is no limit.",
			at:  func(c *Config, _ string) any { return &c.Store.Space.Quota },
		},
		{
			Key: "store.low_water",
			Doc: "Down to what images are removed once the quota is reached: bytes, or a share of the quota.",
			at:  func(c *Config, _ string) any { return &c.Store.Space.LowWater },
		},
		{
			Key: "store.min_free",
			Doc: "How much of the file system of the node's store is to stay free: bytes, or a share of it.",
			at:  func(c *Config, _ string) any { return &c.Store.Space.MinFree },
		},
		{
			Key: "store.max_image",
			Doc: "How large a file may become that is written while an image is pulled on a node. 0B is no limit.",
			at:  func(c *Config, _ string) any { return &c.Store.MaxImage },
		},
		{
			Key: "store.user_quota", Open: true,
			Doc: "How much the images of a user's own store may take together, as store.quota does for the node's.",
			at:  func(c *Config, _ string) any { return &c.Store.UserSpace.Quota },
		},
		{
			Key: "store.user_low_water", Open: true,
			Doc: "As store.low_water, for a user's own store.",
			at:  func(c *Config, _ string) any { return &c.Store.UserSpace.LowWater },
		},
		{
			Key: "store.user_min_free", Open: true,
			Doc: "As store.min_free, for a user's own store.",
			at:  func(c *Config, _ string) any { return &c.Store.UserSpace.MinFree },
		},
		{
			Key: "node.run_dir", check: absolute,
			Doc: "State of running jobs: leases, pinned namespaces, error records. It must not survive a reboot.",
			at:  func(c *Config, _ string) any { return &c.Node.RunDir },
		},
		{
			Key: "node.account", check: notEmpty,
			Doc: "The unprivileged account under which registries are spoken to and layers unpacked.",
			at:  func(c *Config, _ string) any { return &c.Node.Account },
		},
		{
			Key: "node.checker", check: notEmpty,
			Doc: "The account under which the structure of a converted image is checked before it is mounted: another one than node.account, which converted it.",
			at:  func(c *Config, _ string) any { return &c.Node.Checker },
		},
		{
			Key: "node.prolog_wait", check: notNegative,
			Doc: "How long a job's prolog waits for its image. The rest of the wait is the task's, where the user sees progress and scancel works. Keep it far below PrologTimeout.",
			at:  func(c *Config, _ string) any { return &c.Node.PrologWait },
		},
		{
			Key: "node.prepare_deadline", check: positive,
			Doc: "When the preparation of an image for a job is given up.",
			at:  func(c *Config, _ string) any { return &c.Node.PrepareDeadline },
		},
		{
			Key: "node.mount_socket", check: absolute,
			Doc: "The socket of berth-mount.socket, where an admin has enabled that: a user's own berth run then uses the images of the node's store that the user may use.",
			at:  func(c *Config, _ string) any { return &c.Node.MountSocket },
		},
		{
			Key: "node.live_jobs", Example: `["/opt/slurm/bin/squeue", "-h", "-w%n", "-o%A"]`,
			Doc: "The command that prints the jobs which the scheduler has on this node, one number a line. %n in it is the node's name: the host's, up to the first dot. What jobs left behind that are not among them, because their epilog never ran, is removed (berth node reap). It may name more jobs than there are, never fewer. If it fails or prints anything else, nothing is removed; an empty list turns this off.",
			at:  func(c *Config, _ string) any { return &c.Node.LiveJobs },
		},
		{
			Key: "node.pbs_jobs",
			Doc: "The folder in which pbs_mom keeps the jobs of this node, PBS_HOME/mom_priv/jobs. What PBS's jobs left behind that have no file there is removed; if it cannot be read, nothing is. An empty value turns this off.",
			at:  func(c *Config, _ string) any { return &c.Node.PBSJobs },
		},
		{
			Key: "node.job_facts", Example: `["/opt/slurm/bin/squeue", "-h", "-j%j", "-o%A|%P|%a"]`,
			Doc: "The command that prints JOB|PARTITION|ACCOUNT, a line, of the job whose number is %j in it. It is run only where a rule of the policy has accounts or partitions, and slurmd has not told them to the job's prolog: for steps with images of their own in jobs without one, and before Slurm 22.05. If it fails, takes 10 s, or prints anything else, such an image is not prepared; so with an empty list.",
			at:  func(c *Config, _ string) any { return &c.Node.JobFacts },
		},
		{
			Key: "resolve.timeout", Open: true, check: positive,
			Doc: "How long a job's submission waits for a registry to say which digest a tag stands for.",
			at:  func(c *Config, _ string) any { return &c.Resolve.Timeout },
		},
		{
			Key: "resolve.ttl", Open: true, check: notNegative,
			Doc: "How long such an answer is used again for the same user. 0s asks every time.",
			at:  func(c *Config, _ string) any { return &c.Resolve.TTL },
		},
		{
			Key: "login.helper_timeout", Open: true, check: positive,
			Doc: "How long a credential helper (docker-credential-NAME) may take before it is killed. Helpers run only in commands that users run themselves.",
			at:  func(c *Config, _ string) any { return &c.Login.HelperTimeout },
		},
		{
			Key: "grants.ttl", check: notNegative,
			Doc: "How long a registry's word holds that a user may use a private image, before a job that finds the image in the store asks again. Rights that are taken away at the registry last this long on a node. 0s asks each time.",
			at:  func(c *Config, _ string) any { return &c.Grants.TTL },
		},
		{
			Key: "grants.stale_ok",
			Doc: "Whether users may go on with private images that they used before while the registry does not answer, though grants.ttl is over. false fails such jobs.",
			at:  func(c *Config, _ string) any { return &c.Grants.StaleOK },
		},
		{
			Key: "container.mount_home", Open: true,
			Doc: "Whether the user's home is visible in a container, unless the job says otherwise.",
			at:  func(c *Config, _ string) any { return &c.Container.MountHome },
		},
		{
			Key: "container.mount_job_dir",
			Doc: "Whether the folder in which a job was submitted, or that --chdir names, is visible in its containers at the same path, unless the image has something there.",
			at:  func(c *Config, _ string) any { return &c.Container.MountDir },
		},
		{
			Key: "container.remap_root",
			Doc: "Whether users appear as root in containers, unless the job says otherwise.",
			at:  func(c *Config, _ string) any { return &c.Container.RemapRoot },
		},
		{
			Key: "container.slurm",
			Doc: "Whether Slurm's commands (srun, squeue, sbatch and others) work in containers of jobs, unless the job says otherwise. They run on the node as the user, so an image can then do there what the user's job script can do.",
			at:  func(c *Config, _ string) any { return &c.Container.Slurm },
		},
		{
			Key: "container.entrypoint",
			Doc: "Whether the image's entrypoint is run before the tasks of Slurm's steps, once per container, unless the job says otherwise. All tasks then have what it changes of the environment.",
			at:  func(c *Config, _ string) any { return &c.Container.Entrypoint },
		},
		{
			Key: "container.entrypoint_timeout", check: positive,
			Doc: "How long an image's entrypoint may run before the tasks. Then it is killed, and the step fails.",
			at:  func(c *Config, _ string) any { return &c.Container.EntrypointTimeout },
		},
		{
			Key: "container.sub_ids", Open: true,
			Doc: "Whether users who appear as root get the further ids that /etc/subuid and /etc/subgid have for them, so that files and processes in the container can be other accounts'. On a node root maps them, in commands by hand newuidmap and newgidmap do. Folders of the node are read-only in such containers. Without it, or for users who are not in both files, calls that need further ids succeed without doing anything.",
			at:  func(c *Config, _ string) any { return &c.Container.SubIDs },
		},
		{
			Key: "container.sub_id_mounts",
			Doc: "Whether the node's folders (home, /tmp, mounts) can be written to in containers with further ids, where files of ids that are no account's may stay behind.",
			at:  func(c *Config, _ string) any { return &c.Container.SubMounts },
		},
		{
			Key: "container.root", Open: true, check: oneOf(ReadOnly, Writable),
			Doc: "Whether a container's root file system is readonly, or writable in memory until it ends, unless the job says otherwise.",
			at:  func(c *Config, _ string) any { return &c.Container.Root },
		},
		{
			Key: "container.changes", Open: true, check: oneOf(InMemory, OnScratch),
			Doc: "Where what is changed in a writable root file system is until the container ends: in memory, or in a folder of the user's own below container.scratch. Where the kernel's memory can't be used for it (tmpfs before Linux 6.6), it is container.scratch anyhow, if that can.",
			at:  func(c *Config, _ string) any { return &c.Container.Changes },
		},
		{
			Key: "container.memory_limit", Open: true,
			Doc: "How much of memory what is changed in a writable root file system may take: bytes, or a share of the job's memory; of the machine's, where the job has no limit. Writing more fails with \"No space left on device\". As many files as it has pages of 4 KiB are allowed. 0B is no limit.",
			at:  func(c *Config, _ string) any { return &c.Container.Memory },
		},
		{
			Key: "container.scratch", Open: true, check: scratchFolder, Example: `"/scratch/%u/%j"`,
			Doc: "The folder on a local disk below which changes to a root file system go, if container.changes says so. A %t at its beginning is $TMPDIR of the job, or /tmp; %u, %j and the others are as in container.mounts. What is missing of it is made as the user, and stays; the container's own folder in it is removed, as the user. Network file systems can't be used. An empty one forbids it.",
			at:  func(c *Config, _ string) any { return &c.Container.Scratch },
		},
		{
			Key: "container.names_dir", check: namesFolder, Example: `"/scratch/%u/berth"`,
			Doc: "The folder on a local disk of the node below which jobs' containers with a name (--container-name) keep what was changed in them; %u, %U, %h and the others are as in container.mounts. What is missing of it is made as the user; the last part of it must be a folder that is the user's alone. Network file systems can't be used.",
			at:  func(c *Config, _ string) any { return &c.Container.NamesDir },
		},
		{
			Key: "container.names_scope", check: oneOf(ScopeJob, ScopeGlobal),
			Doc: "How long a job's container with a name is there: job, until the job ends; global, for later jobs on the same node, too.",
			at:  func(c *Config, _ string) any { return &c.Container.NamesScope },
		},
		{
			Key: "container.names_expiry", check: notNegative,
			Doc: "How long a container that outlives its job is kept after its last use. Those that are older go when a job of their user starts one, or lists them (berth containers). 0s is for ever.",
			at:  func(c *Config, _ string) any { return &c.Container.NamesExpiry },
		},
		{
			Key: "container.names_quota",
			Doc: "How much a user's named containers on a node may take together before another one starts. It is looked at when one starts; what writes more then is bounded by the disk and its own quotas. 0B is no limit.",
			at:  func(c *Config, _ string) any { return &c.Container.NamesQuota },
		},
		{
			Key: "container.save_timeout", check: positive,
			Doc: "How long it may take to save a step's container (--container-save). It counts towards the job's time limit, and is given up with the step.",
			at:  func(c *Config, _ string) any { return &c.Container.SaveTimeout },
		},
		{
			Key: "container.idle_timeout", Open: true, check: idle,
			Doc: "How long the container of a berth run stands ready after the command has begun, for a further run with the same image and options in the same session: that one joins it, which takes a tenth of the time. It is for read-only containers without a name, and ends before when the session does. 0s turns this off. A tag is believed for resolve.ttl.",
			at:  func(c *Config, _ string) any { return &c.Container.IdleTimeout },
		},
		{
			Key: "container.mounts", Example: `["/db:ro", "/softs:ro+required", "/scratch/%u", "/jobs/%j:/job"]`, check: mountList,
			Doc: "What every container sees of the host: SRC, SRC:FLAGS, SRC:DST or SRC:DST:FLAGS, with the flags of --container-mounts. In paths, %u is the user's name, %U their number, %g and %G name and number of their group, %h their home, %j the job's number, %H the node's short name, %% a percent sign; where one of them is not known the mount is left out. What does not exist on a node is left out, too, unless the flag required is given.",
			at:  func(c *Config, _ string) any { return &c.Container.Mounts },
		},
		{
			Key: "container.dev", check: oneOf(HostDev, MinimalDev),
			Doc: "What a container's /dev is. host is the machine's own, without the device files that CDI specs name and the container was not given; minimal has what every program needs (null, zero, full, random, urandom, tty, ptmx, pts, shm, mqueue, hugepages) and the chosen devices.",
			at:  func(c *Config, _ string) any { return &c.Container.Dev },
		},
		{
			Key: "container.user_mounts",
			Doc: "Whether users may ask for paths of the node in their containers. Like the next three, this protects defaults and not the kernel: who may make user namespaces can show themselves what they can read.",
			at:  func(c *Config, _ string) any { return &c.Container.UserMounts },
		},
		{
			Key: "container.user_mounts_allow", Example: `["/home", "/scratch", "/db"]`, check: pathList,
			Doc: "What users may ask for: these paths and what is below. Empty allows everything. A path counts as what it really is after all symbolic links.",
			at:  func(c *Config, _ string) any { return &c.Container.UserMountsAllow },
		},
		{
			Key: "container.user_mounts_deny", Example: `["/etc", "/var/lib"]`, check: pathList,
			Doc: "What users may not ask for: these paths, what is below, and the folders above, which would show them. It also keeps a job's folder and $TMPDIR out that lie there.",
			at:  func(c *Config, _ string) any { return &c.Container.UserMountsDeny },
		},
		{
			Key: "container.user_mounts_readonly", Example: `["/softs", "/db"]`, check: pathList,
			Doc: "What becomes read-only when users ask for it: these paths, what is below, and the folders above.",
			at:  func(c *Config, _ string) any { return &c.Container.UserMountsReadOnly },
		},
		{
			Key: "container.volumes", Open: true,
			Doc: "Whether the folders that an image declares as volumes are writable in a read-only container: in memory, until it ends. Many images expect to write there.",
			at:  func(c *Config, _ string) any { return &c.Container.Volumes },
		},
		{
			Key: "container.mount_timeout", check: notNegative,
			Doc: "How long the source of a mount may take to answer before the container fails, or starts without it where it need not be there. 0s waits for ever.",
			at:  func(c *Config, _ string) any { return &c.Container.MountTimeout },
		},
		{
			Key: "container.idmap",
			Doc: "Whether the files of an image appear as the user's own, by idmapped mounts, where the kernel can (squashfs: Linux 6.2). false makes every node behave like one with an older kernel: they belong to nobody.",
			at:  func(c *Config, _ string) any { return &c.Container.IDMap },
		},
		{
			Key: "container.env.set", Example: `["OMPI_MCA_btl=^openib"]`, check: variableList,
			Doc: "Variables of every container, NAME=VALUE: they replace the host's and the image's, but not what the user asks for by --env or --container-env.",
			at:  func(c *Config, _ string) any { return &c.Container.EnvSet },
		},
		{
			Key: "container.env.keep", Example: `["http_proxy", "OMPI_MCA_*"]`, check: variableNames,
			Doc: "Variables that keep the host's value although the image sets them; a * at the end stands for all that begin so. What a scheduler sets for its tasks (SLURM_*, PMI_*, PMIX_*, PBS_* and the like) is always kept.",
			at:  func(c *Config, _ string) any { return &c.Container.EnvKeep },
		},
		{
			Key: "container.env.drop", Example: `["LD_PRELOAD", "LMOD_*", "MODULEPATH"]`, check: variableNames,
			Doc: "Variables of the host that containers do not get, unless the user asks for them by --env or --container-env; a * at the end stands for all that begin so.",
			at:  func(c *Config, _ string) any { return &c.Container.EnvDrop },
		},
		{
			Key: "registry.*.insecure", Open: true,
			Doc: "Whether this registry may answer by plain http, or with a certificate that nobody vouches for.",
			at:  func(c *Config, host string) any { return &c.registry(host).Insecure },
		},
		{
			Key: "registry.*.ca", Open: true, check: absoluteOrTilde, Example: `"/etc/berth/registry-ca.pem"`,
			Doc: "A PEM file with authorities to trust for this registry, besides the system's.",
			at:  func(c *Config, host string) any { return &c.registry(host).CA },
		},
		{
			Key: "registry.*.mirrors", Open: true, Example: `["mirror.example.org/quay"]`, check: mirrorList,
			Doc: "Where to look before this registry itself, in this order: HOST or HOST/PREFIX.",
			at:  func(c *Config, host string) any { return &c.registry(host).Mirrors },
		},
		{
			Key: "registry.*.proxy", Open: true, check: proxyURL, shown: hideLogin, Example: `"http://proxy.example.org:3128"`,
			Doc: "The proxy for this registry and where it redirects to, instead of network.proxy; \"direct\" for none.",
			at:  func(c *Config, host string) any { return &c.registry(host).Proxy },
		},
		{
			Key: "registry.*.api", Open: true, check: registryAPI, Example: `"quay"`,
			Doc: "The interface of its own by which berth search and berth tags ask this registry: \"quay\" (also Red Hat Quay), \"dockerhub\", \"harbor\" or \"none\". Unset, quay.io and docker.io are asked by theirs, others by none.",
			at:  func(c *Config, host string) any { return &c.registry(host).API },
		},
		{
			Key: "registry.*.mirror_login", check: absoluteOrNone, Example: `"/etc/berth/mirror-login.json"`,
			Doc: "The site's login to a mirror, in a file as docker login writes it. Nodes show it to this host where they ask it as a mirror and it wants a login; never where a job names the host itself. It belongs to node.account with mode 0600, or to root with 0640 and the account's group. What the mirror gives for it is for all users of the nodes: a mirror that holds private images must not give them to this login.",
			at:  func(c *Config, host string) any { return &c.registry(host).MirrorLogin },
		},
		{
			Key: "registry.*.takes_logins",
			Doc: "Whether this host, as a mirror, may be shown the user's login to the registry that it mirrors. Without it no mirror is.",
			at:  func(c *Config, host string) any { return &c.registry(host).TakesLogins },
		},
	}, slices.Concat(deviceSettings(), hookSettings(), mpiSettings(), clusterSettings(), networkSettings(), policySettings(), recordSettings())...)
}

// defaults returns the built-in values.
func defaults() *Config {
	return &Config{
		Store: Store{
			Dir: "/var/lib/berth", Converter: "stream", MaxImage: 200e9,
			Space:     Space{LowWater: Share{Percent: 90}, MinFree: Share{Percent: 5}},
			UserSpace: Space{LowWater: Share{Percent: 90}},
		},
		Cluster: defaultCluster(),
		Node: Node{
			RunDir: "/run/berth", Account: "berth", Checker: "nobody",
			MountSocket: "/run/berth-mount.socket",
			PrologWait:  2 * time.Second, PrepareDeadline: 30 * time.Minute,
			LiveJobs: []string{"squeue", "-h", "-w%n", "-o%A"},
			PBSJobs:  "/var/spool/pbs/mom_priv/jobs",
			JobFacts: []string{"squeue", "-h", "-j%j", "-o%A|%P|%a"},
		},
		Resolve: Resolve{Timeout: 3 * time.Second, TTL: 10 * time.Minute},
		Container: Container{
			MountHome: true, MountDir: true, Root: ReadOnly, IDMap: true, Dev: HostDev, Changes: InMemory, Memory: Share{Percent: 50}, Scratch: "%t",
			UserMounts: true, MountTimeout: 10 * time.Second, Volumes: true, IdleTimeout: time.Minute, EntrypointTimeout: 2 * time.Minute, SaveTimeout: time.Hour,
			NamesDir: "/var/tmp/berth-%U", NamesScope: ScopeGlobal, NamesExpiry: 14 * 24 * time.Hour,
		},
		Devices:  defaultDevices(),
		Hooks:    defaultHooks(),
		MPI:      defaultMPI(),
		Login:    Login{HelperTimeout: 5 * time.Second},
		Grants:   Grants{TTL: 12 * time.Hour},
		Network:  defaultNetwork(),
		Limits:   defaultLimits(),
		Policy:   Policy{Default: Allow},
		Records:  defaultRecords(),
		Log:      Log{To: LogAuto},
		Registry: map[string]*Registry{},
		origin:   map[string]Origin{},
	}
}

// Env returns the name of the environment variable of an open setting, or ""
// when it has none.
func (s Setting) Env() string {
	if !s.Open || s.perHost() {
		return ""
	}
	return "BERTH_" + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

func (s Setting) perHost() bool { return strings.Contains(s.Key, "*") }

func absolute(value any) error {
	if path := value.(string); !filepath.IsAbs(path) {
		return fmt.Errorf("%q is not an absolute path", path)
	}
	return nil
}

// absoluteOrTilde also takes a path below the user's home.
func absoluteOrTilde(value any) error {
	if strings.HasPrefix(value.(string), "~/") {
		return nil
	}
	return absolute(value)
}

// namesFolder is the same without $TMPDIR, which ends with the job.
func namesFolder(value any) error {
	if strings.HasPrefix(value.(string), "%h") {
		return nil
	}
	return absolute(value)
}

// scratchFolder is an absolute path, or begins with a placeholder for one.
func scratchFolder(value any) error {
	path := value.(string)
	if path == "" || strings.HasPrefix(path, "%t") || strings.HasPrefix(path, "%h") {
		return nil
	}
	return absolute(value)
}

func notEmpty(value any) error {
	if value.(string) == "" {
		return errors.New("it is empty")
	}
	return nil
}

// idle is whole seconds, up to a day.
func idle(value any) error {
	if d := value.(time.Duration); d < 0 || d > 24*time.Hour || d%time.Second != 0 {
		return fmt.Errorf("%s is not between 0s and 24h in whole seconds", d)
	}
	return nil
}

func notNegative(value any) error {
	if d := value.(time.Duration); d < 0 {
		return fmt.Errorf("%s is negative", d)
	}
	return nil
}

func positive(value any) error {
	if d := value.(time.Duration); d <= 0 {
		return fmt.Errorf("%s is not more than zero", d)
	}
	return nil
}

func oneOf(words ...string) func(any) error {
	return func(value any) error {
		for _, w := range words {
			if value == w {
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", value, strings.Join(words, ", "))
	}
}
