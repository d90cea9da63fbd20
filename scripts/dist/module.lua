-- Lmod module file of Copper. It finds the installation by its own place, PREFIX/modulefiles/copper,
-- so the installation may be moved.
--
-- It does not set LD_PRELOAD: Copper serves the programs of a job, not every command of a shell.
help([[
Copper reads each file from the parallel file system once and serves it from the nodes' memory.

  copper start --allocation --cover DIR     one helper on every node of the job
  LD_PRELOAD=$(copper env --lib)            for the ranks
  copper stop

Examples of job scripts are in $COPPER_ROOT/share/copper/examples. See also: copper doctor.
]])

whatis("Name: copper")
whatis("Version: " .. myModuleVersion())
whatis("Description: reads each file once and serves it to all processes of a job from memory")

local root = myFileName():match("^(.*)/modulefiles/copper/[^/]*$")
setenv("COPPER_ROOT", root)
prepend_path("PATH", pathJoin(root, "bin"))
prepend_path("MANPATH", pathJoin(root, "share/man"))
