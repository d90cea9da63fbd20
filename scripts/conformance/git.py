"""git at work on a clone: what it prints, and what lies in the work tree and in the repository."""

import os
import re
import shutil
import subprocess

# Seconds.
LIMIT = 300

SETUP = """
git init -q -b main origin.git --bare
git init -q -b main first && cd first
mkdir -p src/deep docs && seq 500 > src/numbers && echo one > src/one && echo two > src/deep/two
ln -s src/one link && printf '*.o\\n' > .gitignore && chmod +x src/one && touch src/x.o
git add . && git commit -qm first && git remote add origin ../origin.git && git push -q -u origin main
"""

# What looks at everything afterwards. Pack files' names and reflog times are the same for the same history.
LOOK = """
git status --porcelain=v2 --branch --ignored; git log --all --graph --format='%H %s %d'; git stash list
git ls-files -s; git diff HEAD | cksum; git for-each-ref; git fsck --full 2>&1
find . -path ./.git -prune -o -type f -print | sort | xargs cksum; ls -lR --time-style=+ . | grep -v total | cksum
"""

SCENARIOS = {
    "clone": "cd .. && git clone -q origin.git second && cd second && git log --oneline && diff -r -x '*.o' src ../first/src",
    "clone and hard links": "cd .. && git clone -q --local first third && cd third && git fsck && git gc -q && git count-objects -v",
    "shallow clone": "cd .. && git clone -q --depth 1 file://$PWD/origin.git shallow && cd shallow && git fetch -q --unshallow && git log --oneline",
    "commit": "echo more >> src/one && git add -u && git commit -qm second && git commit -q --amend -m again && git push -q",
    "status after writes": "for i in 1 2 3 4 5; do echo $i >> src/one; git status -s; git add src/one; git status -s; done",
    "same size, same second": "for i in 1 2 3; do echo onf > src/one; git status -s; echo own > src/one; git diff --stat; git checkout -q src/one; git status -s; done",
    "branches": "git switch -qc topic && echo t > topic && git add . && git commit -qm topic && git switch -q main && ls && git switch -q topic && ls && git branch -vv",
    "merge": "git switch -qc a && echo a > a && git add . && git commit -qm a && git switch -q main && echo b > b && git add . && git commit -qm b && git merge -q -m merged a && git log --graph --oneline",
    "conflict": "git switch -qc a && echo a > src/one && git commit -qam a && git switch -q main && echo b > src/one && git commit -qam b && ! git merge a && cat src/one && git checkout --theirs src/one && git add . && git commit -qm merged",
    "rebase": "git switch -qc a && for i in 1 2 3; do echo $i > file$i; git add .; git commit -qm $i; done; git switch -q main && echo b > b && git add . && git commit -qm b && git switch -q a && git rebase -q main && git log --oneline",
    "interactive rebase": "for i in 1 2 3 4; do echo $i > file$i; git add .; git commit -qm $i; done; GIT_SEQUENCE_EDITOR='sed -i 2s/pick/squash/' GIT_EDITOR=true git rebase -q -i HEAD~4; git log --format='%s %b'",
    "cherry-pick and revert": "git switch -qc a && echo a > a && git add . && git commit -qm a && git switch -q main && git cherry-pick a > /dev/null && git revert --no-edit HEAD > /dev/null && git log --format=%s",
    "stash": "echo s >> src/one && echo u > untracked && git stash -q -u && git status -s && git stash pop -q && git status -s && git stash -q && git stash apply -q",
    "reset": "echo a > a && git add . && git commit -qm a && git reset -q --soft HEAD~ && git status -s && git reset -q && git status -s && git reset -q --hard && git clean -fdxn && git clean -fdxq && ls -a",
    "rename and remove": "git mv src/one src/uno && git rm -q docs -r --ignore-unmatch; git mv src/deep deep && git commit -qam moved && git log --follow --format=%s src/uno && git rm -q src/uno && git commit -qm removed",
    "worktree": "git worktree add -q ../tree -b tree && cd ../tree && echo w > w && git add . && git commit -qm w && git worktree list | wc -l && cd ../first && git worktree remove ../tree && git worktree prune && git branch",
    "submodule": "cd .. && git init -q -b main sup && cd sup && git -c protocol.file.allow=always submodule --quiet add ../origin.git sub && git commit -qm sub && git submodule status && cat .gitmodules sub/src/one",
    "collect garbage": "for i in $(seq 20); do echo $i > src/one; git commit -qam $i; done; git gc -q --prune=now; git count-objects -v; git repack -adq; git reflog expire --expire=now --all; git prune; git log --oneline | wc -l",
    "bisect": "for i in $(seq 8); do echo $i > n; git add n; git commit -qm $i; done; git bisect start HEAD HEAD~7 > /dev/null && git bisect run sh -c 'test $(cat n) -lt 5' | grep 'first bad' -A4; git bisect reset > /dev/null 2>&1",
    "patches": "for i in 1 2; do echo $i > p$i; git add .; git commit -qm p$i; done; git format-patch -q -2 -o ../patches; git reset -q --hard HEAD~2; git am -q ../patches/*; git log --format=%s; git apply --stat ../patches/*",
    "archive and bundle": "git archive HEAD | tar -tf -; git bundle create -q ../all.bundle --all && git clone -q ../all.bundle ../bundled && git -C ../bundled log --format=%s; git bundle verify -q ../all.bundle",
    "sparse checkout": "git sparse-checkout set docs src/deep && find . -path ./.git -prune -o -print | sort; git sparse-checkout disable && ls src",
    "hooks": "printf '#!/bin/sh\\necho checked >> ../hooked\\n' > .git/hooks/pre-commit && chmod +x .git/hooks/pre-commit && echo h > h && git add . && git commit -qm h && cat ../hooked",
    "attributes and filters": "printf '*.txt text eol=crlf\\n*.up filter=up\\n' > .gitattributes && git config filter.up.clean 'tr a-z A-Z' && git config filter.up.smudge 'tr A-Z a-z' && printf 'a\\nb\\n' > a.txt && echo word > a.up && git add . && git commit -qm f && git show HEAD:a.up && rm a.txt a.up && git checkout . && od -c a.txt && cat a.up",
    "tags and notes": "git tag -a -m one v1 && git notes add -m note && git describe && git log --show-notes --format='%s %N' && git tag -d v1",
    "blame and grep": "echo more >> src/one && git commit -qam more && git blame -s src/one && git grep -n two && git grep -c 1 src/numbers && git log -S more --format=%s && git shortlog -s",
    "modes and links": "chmod -x src/one && ln -sfn src/numbers link && git status -s && git diff && git commit -qam modes && git checkout -q HEAD~ && ls -l link src/one | cut -c1-10 && git checkout -q main",
    "untracked cache and index": "git update-index --untracked-cache; git update-index --test-untracked-cache 2>&1 | tail -1; touch n1 n2; git status -s; rm n1; git status -s; git update-index --split-index; echo z > src/one; git add .; git status -s; git update-index --really-refresh; git status -s",
    "fetch between two": "cd .. && git clone -q origin.git other && cd first && echo f > f && git add . && git commit -qm f && git push -q && cd ../other && git pull -q && cat f && echo g > g && git add . && git commit -qm g && git push -q && cd ../first && git pull -q && cat g",
}
ALWAYS_THE_SAME = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2001-01-01T00:00:00Z",
    # Tidying up in the background would end at any time.
    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "gc.auto", "GIT_CONFIG_VALUE_0": "0",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0",
}


class Suite:
    """Each scenario in a clone of its own, in `tree`, which the ways cover."""

    units = list(SCENARIOS)
    quick = list(SCENARIOS)[::4]
    writes = True

    def __init__(self, tree):
        self.tree = tree / "git"
        version = subprocess.run(["git", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.title = f"git {version.split()[2]}"

    def prepare(self):
        self.tree.mkdir()

    def run(self, way, unit, place, log):
        """The outcome of a scenario is everything that it said, as one word."""
        work = self.tree / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        if way.user is not None:
            os.chown(work, way.user, way.user)
        script = f"set -e\n{SETUP}\nstatus=0; ( {SCENARIOS[unit]} ) || status=$?\ncd {work}/first; set +e\n{LOOK}\nexit $status"
        environment = {**way.environment(), **ALWAYS_THE_SAME, "TMPDIR": str(place), "HOME": str(place)}
        ended = way.run(["bash", "-c", script], work, environment, log, LIMIT)
        said = re.sub(r"/tmp\.\w+|\d+ bytes|in [\d.]+s", "", log.read_text(errors="replace"))
        log.write_text(said)
        shutil.rmtree(work)
        return {unit: "passed" if ended == 0 else f"ended with {ended}", f"{unit}: output": said}
