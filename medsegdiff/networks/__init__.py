"""Networks: an encoder that runs once per image and a denoiser that runs per step and member.

They know the time step ``t``, never the schedule behind it.
"""
