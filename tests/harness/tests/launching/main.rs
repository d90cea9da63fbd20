//! Starting and ending jobs as users do: with the launchers of batch systems and MPIs, by job
//! scripts, and by a job's end. Nodes are namespaces of this machine (`scripts/cluster.sh`), so root
//! is needed; MPICH, Open MPI, Slurm, and ssh with its server are real ones (`scripts/setup.sh`), other
//! launchers are played by `stand_in.py`.

mod endings;
mod examples;
mod fixture;
mod launchers;
mod limits;
mod mpi;
mod options;
mod packages;
mod ranks;
mod scripts;
mod slurm;
mod sshd;
mod starting;
