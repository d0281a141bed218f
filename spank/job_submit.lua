-- Writes into a job's AdminComment which image it asks for and which digest
-- its tag meant at submission:
--
--     berth=quay.io/biocontainers/samtools:1.20@sha256:…
--
-- so that `squeue -O admin_comment`, sacct and `berth warm --queue` can tell.
-- slurmctld runs it: JobSubmitPlugins=lua, with this file as job_submit.lua
-- beside slurm.conf. A site that has one already copies berth_annotate and
-- calls it from its slurm_job_submit. It needs the Berth plugin on the submit
-- hosts, whose request comes in the job control environment (spank_job_env).

-- The values are the user's: anything else than a name could be is left out.
local function word(value)
  if value ~= nil and #value <= 512 and string.match(value, "^[%w%.%-_/:@#%%]+$") then
    return value
  end
end

local function requested(job_desc, name)
  for _, entry in pairs(job_desc.spank_job_env or {}) do
    local value = string.match(entry, "^BERTH_" .. name .. "=(.*)$")
    if value ~= nil then
      return value
    end
  end
end

function berth_annotate(job_desc)
  local image = word(requested(job_desc, "IMAGE"))
  if image == nil then
    return
  end
  -- The digest travels with its image: sha256:…=IMAGE.
  local digest = string.match(requested(job_desc, "DIGEST") or "", "^(sha256:%x+)=")
  local note = "berth=" .. image
  if digest ~= nil and not string.find(image, "@", 1, true) then
    note = note .. "@" .. digest
  end
  local before = job_desc.admin_comment
  if before ~= nil and before ~= "" then
    note = before .. " " .. note
  end
  job_desc.admin_comment = note
end

function slurm_job_submit(job_desc, part_list, submit_uid)
  berth_annotate(job_desc)
  return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS
